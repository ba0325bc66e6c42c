"""Finds NVIDIA's compiler in the packages that PyTorch installs.

tinygrad looks for it in the folders of the system, where a machine with only a driver and
PyTorch has none.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

_TOOLKITS = (Path("/usr/local/cuda"), Path("/opt/cuda"))


def cuda_settings() -> dict[str, str]:
    """tinygrad's environment variables for the library and the headers of its CUDA compiler;
    empty if the system has a CUDA toolkit, or no package has them."""
    if any(folder.exists() for folder in _TOOLKITS):
        return {}
    settings = {}
    for folder in _packages():
        if library := next(folder.glob("lib/libnvrtc.so.[0-9]*"), None):
            settings["NVRTC_PATH"] = str(library)
        if (folder / "include/cuda_fp16.h").exists():
            settings["CUDA_PATH"] = str(folder)
    return settings


def _packages() -> Iterator[Path]:
    """The folders of NVIDIA's packages, such as nvidia/cuda_nvrtc or nvidia/cu13."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        yield from (folder for folder in sorted(Path(place).iterdir()) if folder.is_dir())
