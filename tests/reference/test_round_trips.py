"""Checkpoint -> spec -> checkpoint: transformers loads what archdsl exported as its own.

No key is missing or unexpected, every weight has its bits, and the config has its fields. The
tensors of an architecture that transformers lacks are compared as they stand in the files. Of
a length and a direction, only the product has to be the same.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.cli import main

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import load_file  # noqa: E402  # torch may be missing

from tests.reference.families import Family, library  # noqa: E402
from tests.reference.test_families import FAMILIES  # noqa: E402
from tests.reference.test_heads import (  # noqa: E402
    DECODERS,
    DECODERS_WITH_HEADS,
    MORE,
    SEQ2SEQ,
    T5,
    T5_HEADS,
    TEXT,
    TOWERS,
    VISION,
    saved,
)
from tests.suite import first  # noqa: E402

pytestmark = pytest.mark.reference("torch", "transformers")

cases = [
    pytest.param(family, marks=pytest.mark.slow if family in FAMILIES else (), id=family.name)
    for family in library()
]


# Of training alone, and sinusoids: our models lack them, and transformers makes them anew.
LEFT_OUT = {"embeddings.mask_token"}
LEFT_OUT |= {f"{part}.embed_positions.weight" for part in ("encoder", "decoder")}
LEFT_OUT |= {"esm.rotary_embeddings.inv_freq", "rotary_embeddings.inv_freq"}
# The head of ESM that predicts contacts.
CONTACTS = {f"contact_head.regression.{each}" for each in ("weight", "bias")}
LEFT_OUT |= {*CONTACTS, *(f"esm.{each}" for each in CONTACTS)}
LEFT_OUT |= {f"model.{part}.embed_positions.weight" for part in ("encoder", "decoder")}
# Angles, how many batches a batch norm has seen, and what the encoder of a Conformer has but
# does not use.
UNUSED = re.compile(
    r"wav2vec2_conformer\.encoder\."
    r"(embed_positions\.inv_freq|pos_conv_embed\..*|.*\.num_batches_tracked)"
)


def is_left_out(name: str) -> bool:
    return name in LEFT_OUT or UNUSED.fullmatch(name) is not None


@pytest.mark.few(6)
@pytest.mark.parametrize("family", cases)
@pytest.mark.parametrize("seed", first([3, 4]))
def test_there_and_back(
    family: Family, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family.save(tmp_path / "there", seed)
    there_and_back(tmp_path)
    capsys.readouterr()


@pytest.mark.long
@pytest.mark.parametrize("model", DECODERS_WITH_HEADS)
def test_heads_of_decoders_there_and_back(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, sizes = DECODERS[f"{model.split('For')[0]}Model"]
    saved(tmp_path / "there", model, config, sizes | {"pad_token_id": 3})
    there_and_back(tmp_path)
    capsys.readouterr()


@pytest.mark.long
@pytest.mark.parametrize("model", TOWERS)
def test_one_encoder_of_clip_there_and_back(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Text" in model
    config = "CLIPTextConfig" if text else "CLIPVisionConfig"
    saved(tmp_path / "there", model, config, TEXT if text else VISION)
    there_and_back(tmp_path)
    capsys.readouterr()


@pytest.mark.long
@pytest.mark.parametrize("model", [*T5_HEADS, *MORE])
def test_bare_models_and_heads_of_encoder_decoders_there_and_back(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if model in MORE:
        saved(tmp_path / "there", f"{model}Model", f"{model}Config", SEQ2SEQ | MORE[model])
    else:
        saved(tmp_path / "there", f"T5{model}", "T5Config", T5)
    there_and_back(tmp_path)
    capsys.readouterr()


def product(state: Any, name: str) -> Any:
    """The weight that is stored as a length along an axis and a direction."""
    length, direction = state[f"{name}.original0"], state[f"{name}.original1"]
    others = [axis for axis, size in enumerate(length.shape) if size == 1]
    return direction * length / direction.norm(dim=others, keepdim=True)


def there_and_back(folder: Path) -> None:
    """Imports and exports the checkpoint in `there`."""
    there, back = folder / "there", folder / "back"
    spec, weights = str(folder / "my.arch"), str(folder / "my.safetensors")
    assert main(["import", str(there), "-o", spec, "--weights", weights]) == 0
    assert archdsl.check(spec) == []
    assert main(["export", spec, "--weights", weights, "--to", str(back)]) == 0

    (name,) = json.loads((there / "config.json").read_text())["architectures"]
    if hasattr(transformers, name):
        load = getattr(transformers, name).from_pretrained
        right, _ = load(there, output_loading_info=True)
        found, told = load(back, output_loading_info=True)
        assert all(map(is_left_out, told.pop("missing_keys")))
        assert not any(told.values()), told
        ours, theirs = found.state_dict(), right.state_dict()
    else:
        ours, theirs = (load_file(each / "model.safetensors") for each in (back, there))
    assert ours.keys() == theirs.keys()
    for key in (key for key in theirs if not is_left_out(key)):
        normed, _, factor = key.partition(".original")
        if not factor:
            assert torch.equal(ours[key], theirs[key]), key
        elif factor == "0":
            weights = [product(state, normed) for state in (ours, theirs)]
            assert torch.allclose(*weights, rtol=1e-5, atol=1e-7), key
    one, two = (json.loads((each / "config.json").read_text()) for each in (back, there))
    assert one == two
    # The spec that was written makes the same model as the checkpoint does.
    assert archdsl.compile(spec).graph == archdsl.from_pretrained(there, device="CPU").graph
