"""Longer texts and other images than a config names, as transformers computes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.backend.positions import cubic
from archdsl.cli import main
from tests.reference.agreement import TOLERANCE, apart

pytestmark = pytest.mark.reference("torch", "transformers")


def test_t5_beyond_its_positions(tmp_path: Path) -> None:
    """Relative positions have no limit: `n_positions` is only the length in training."""
    import torch
    import transformers

    config = transformers.T5Config(
        vocab_size=43,
        n_positions=16,
        d_model=16,
        num_heads=2,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        decoder_start_token_id=0,
    )
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    source, target = np.random.default_rng(0).integers(1, 43, (2, 2, 75))
    with torch.no_grad():
        right = theirs(
            input_ids=torch.from_numpy(source), decoder_input_ids=torch.from_numpy(target)
        ).logits
    ours = archdsl.from_pretrained(tmp_path, device="CPU")
    assert apart(ours(source=source, target=target)["logits"], right) < TOLERANCE
    decoder = ours.decoder(2, limit=75)
    decoder.begin(source=source)
    steps = [
        decoder.feed(target[:, :70]),
        *(decoder.feed(target[:, i : i + 1]) for i in range(70, 75)),
    ]
    assert apart(np.concatenate(steps, axis=1), right) < TOLERANCE


IMAGES = {
    "ViTModel": ("ViTConfig", 1),
    "DeiTModel": ("DeiTConfig", 2),
    "Dinov2Model": ("Dinov2Config", 1),
}
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 40,
    "patch_size": 8,
}


@pytest.mark.few(2)
@pytest.mark.parametrize("shape", [(72, 24), (40, 80), (16, 16), (8, 56)])
@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_another_size(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    """Trained positions are interpolated, by cubic convolution."""
    import torch
    import transformers

    torch.manual_seed(3)
    config, before = IMAGES[kind]
    theirs = getattr(transformers, kind)(getattr(transformers, config)(**SIZES)).eval()
    table = theirs.embeddings.position_embeddings
    torch.nn.init.normal_(table)
    theirs.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).standard_normal((2, 3, *shape)).astype(np.float32)
    always = {} if kind == "Dinov2Model" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        right = theirs(torch.from_numpy(pixels), **always).last_hidden_state
    height, width = shape
    ours = archdsl.from_pretrained(tmp_path, device="CPU", height=height, width=width)
    assert apart(ours(pixels=pixels)["hidden"], right) < TOLERANCE
    assert right.shape[1] == before + height // 8 * (width // 8)


def test_the_size_of_images_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    import transformers
    from PIL import Image

    sizes = SIZES | {"num_labels": 3}
    theirs = transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**sizes))
    theirs.eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"do_resize": false, "do_center_crop": false, "do_rescale": true,'
        ' "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    image = np.random.default_rng(1).integers(0, 256, (24, 56, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    given = [
        "classify",
        str(tmp_path),
        str(tmp_path / "image.png"),
        "--json",
        "--device",
        "CPU",
    ]
    assert main(given) == 1
    assert "`--set height=24 --set width=56`" in capsys.readouterr().err
    assert main([*given, "--set", "height=24", "--set", "width=56"]) == 0
    found = json.loads(capsys.readouterr().out)["classes"]
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None] / 127.5 - 1).float()
    with torch.no_grad():
        right = theirs(pixels).logits.softmax(-1)[0].sort(descending=True)
    assert [each["probability"] for each in found] == pytest.approx(right.values, abs=1e-5)
    assert [each["label"] for each in found] == [f"LABEL_{i}" for i in right.indices.tolist()]


def test_weights_of_cubic_convolution() -> None:
    """Each row sums to 1, and an unchanged size changes nothing."""
    for before, after in ((5, 9), (9, 5), (3, 1), (1, 4)):
        assert np.allclose(cubic(before, after).sum(1), 1)
    assert np.array_equal(cubic(6, 6), np.eye(6))
