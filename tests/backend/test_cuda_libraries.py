"""The CUDA compiler of PyTorch's packages."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from archdsl.backend import cuda_libraries
from archdsl.backend.cuda_libraries import cuda_settings


def test_the_compiler_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "cuda_nvrtc/lib/libnvrtc.so.12"
    header = tmp_path / "cuda_runtime/include/cuda_fp16.h"
    for file in (library, library.with_name("libnvrtc-builtins.so.12.8"), header):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    spec = ModuleSpec("nvidia", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr(cuda_libraries, "_TOOLKITS", ())
    found = {"NVRTC_PATH": str(library), "CUDA_PATH": str(tmp_path / "cuda_runtime")}
    assert cuda_settings() == found
    monkeypatch.setattr(cuda_libraries, "_TOOLKITS", (tmp_path,))
    assert cuda_settings() == {}
    monkeypatch.setattr(cuda_libraries, "_TOOLKITS", ())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cuda_settings() == {}
