"""One of timm's image models, made and computed with in a process of its own.

    python -m tests.reference.families.timm_models FOLDER

reads `given.json` and `pixels.npy` from the folder and writes `timm.pt` and `outputs.npz`
there. timm imports torchvision to read and cut images, which is not done here, and whose
wheels do not load beside every build of PyTorch; so what stands here in its place is empty.
"""

from __future__ import annotations

import json
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class _Anything(type):
    """The class of classes that have every attribute."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Torchvision(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        inside = name.split(".")[0] == "torchvision"
        return ModuleSpec(name, self, is_package=True) if inside else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def main(folder: Path) -> None:
    sys.meta_path.insert(0, _Torchvision())
    import torch
    from timm.layers import SwiGLUPacked
    from timm.models.cait import Cait
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    from tests.reference.families.encoders import drawn

    asked = json.loads((folder / "given.json").read_text(encoding="utf-8"))
    given = asked["given"]
    if asked["gated"]:
        given |= {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}
    made = {"deit": VisionTransformerDistilled, "cait": Cait}
    model = made.get(asked["kind"], VisionTransformer)(**given)
    drawn(model, asked["seed"])
    torch.save(model.state_dict(), folder / "timm.pt")
    with torch.no_grad():
        images = torch.from_numpy(np.load(folder / "pixels.npy"))
        hidden, read = model.forward_features(images).numpy(), model(images).numpy()
    np.savez(folder / "outputs.npz", hidden=hidden, read=read)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
