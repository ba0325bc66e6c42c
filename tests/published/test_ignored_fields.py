"""Config fields that no spec knows: errors, unless the caller ignores them by name."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.cli import main
from archdsl.cli.checkpoints import add_checkpoint, load_model
from archdsl.diagnostics import ArchError
from archdsl.published.config_values import has_no_effect

SIZES = {"vocab": 10, "context": 4, "D": 4, "heads": 2, "depth": 1}
ODD = {"condition_on_species": True, "species-map": {"a": 1}}
IGNORED = ["condition_on_species", "species-map"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `there` with a small GPT-2, whose config has two odd fields."""
    monkeypatch.chdir(tmp_path)
    archdsl.compile("gpt2.arch:small", **SIZES, device="CPU").save("small.safetensors")
    options = [f"--set={name}={size}" for name, size in SIZES.items()]
    weights = ["--weights", "small.safetensors"]
    assert main(["export", "gpt2.arch:small", *options, *weights, "--to", "there"]) == 0
    change(ODD)


def change(fields: dict[str, Any]) -> None:
    path = Path("there/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields), encoding="utf-8")


def load(*ignore: str, **options: Any) -> archdsl.Model:
    return archdsl.from_pretrained("there", device="CPU", ignore=ignore, **options)


def test_the_message_names_the_way_out() -> None:
    with pytest.raises(ArchError) as raised:
        load()
    text = str(raised.value)
    assert "--ignore condition_on_species" in text
    assert 'ignore=["condition_on_species"]' in text
    assert "--ignore species-map.a" in text


def test_ignored_fields_do_not_change_the_model() -> None:
    odd = load(*IGNORED)
    change(dict.fromkeys(ODD))
    assert odd(tokens=[[1, 2]])["logits"].tolist() == load()(tokens=[[1, 2]])["logits"].tolist()


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        ("n_embd", "n_embd cannot be ignored, because this spec reads it"),
        ("condition_on_specie", "did you mean `condition_on_species`?"),
    ],
)
def test_only_fields_that_are_there_and_unknown_can_be_ignored(
    ignore: str, message: str
) -> None:
    with pytest.raises(ArchError, match="ignore") as raised:
        load(*IGNORED, ignore)
    assert message in str(raised.value)


def test_a_string_is_not_a_list_of_fields() -> None:
    with pytest.raises(ArchError, match="takes a list of fields"):
        archdsl.from_pretrained("there", ignore="condition_on_species")


def test_the_spec_of_an_import_lists_them() -> None:
    options = [f"--ignore={field}" for field in IGNORED]
    assert main(["import", "there", *options, "-o", "my.arch"]) == 0
    text = Path("my.arch").read_text()
    assert "condition_on_species = any  # ignored by the import" in text
    assert '# ignored by the import: "species-map"' in text
    assert archdsl.check("my.arch") == []
    load("species-map", spec="my.arch")


@pytest.mark.parametrize("command", ["generate", "classify", "embed", "transcribe", "import"])
def test_commands_have_the_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--ignore FIELD" in capsys.readouterr().out


def test_a_spec_has_no_config_to_ignore() -> None:
    parser = argparse.ArgumentParser()
    add_checkpoint(parser)
    given = ["gpt2.arch", "--weights", "small.safetensors", "--ignore", "odd"]
    with pytest.raises(ArchError, match="only with a published checkpoint"):
        load_model(parser.parse_args(given))


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("output_hidden_states", True),
        ("text_config.attention_dropout", True),
        ("task_specific_params.text.max_length", True),
        ("output_multiplier", False),
        ("_sliding_window_pattern", False),
        ("router_bias", False),
        ("initializer_weights", False),
    ],
)
def test_fields_without_effect_are_listed_by_name(field: str, known: bool) -> None:
    assert has_no_effect(field, True) is known


def test_switches_that_are_off_have_no_effect() -> None:
    assert has_no_effect("vision_config.tie_encoder_decoder", False)
    assert not has_no_effect("is_decoder", True)
    assert not has_no_effect("is_decoder", None)
    change(dict.fromkeys(ODD) | {"is_decoder": False, "is_encoder_decoder": False})
    load()
    change({"is_decoder": True})
    with pytest.raises(ArchError, match="is_decoder is true"):
        load()
