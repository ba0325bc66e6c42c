"""`archdsl audit`: one planted fault in each folder, and nothing in a clean one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.audit.findings import LEVELS, Finding
from archdsl.audit.report import audit
from archdsl.cli import main
from archdsl.formats import read_checkpoint, write_safetensors
from tests.audit.clean_folder import (
    LETTERS,
    ROWS,
    TEMPLATE,
    change,
    change_weights,
    weight,
    write_clean,
    write_images,
)
from tests.text.tokenizer_files import needs

pytestmark = [pytest.mark.reference("tokenizers"), needs("jinja2")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "clean"
    write_clean(folder)
    return folder


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "model"))


def config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, "config.json", **fields)


def settings(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, "tokenizer_config.json", **fields)


def options(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, "generation_config.json", **fields)


def tensors(**arrays: Any) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, **arrays)


def several(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for each in changes:
            each(folder)

    return apply


UP = "model.layers.1.mlp.up_proj.weight"


def planted(name: str, place: tuple[int, int], value: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        array = weight(folder, name)
        array[place] = value
        change_weights(folder, **{name: array})

    return apply


def trained(layout: str) -> Callable[[Path], None]:
    """Gives the rows of queries and keys the norms that training gives them."""

    def apply(folder: Path) -> None:
        norms = np.geomspace(0.2, 5, 8, dtype=np.float32)
        size = np.tile(norms, 2) if layout == "halves" else np.repeat(norms, 2)
        names = [f"model.layers.{i}.self_attn.{p}_proj.weight" for i in range(3) for p in "qk"]
        rows = np.tile(size, 2)[:, None]
        change_weights(folder, **{name: weight(folder, name) * rows for name in names})

    return apply


def sharded(twice: bool = False, listed: bool = True) -> Callable[[Path], None]:
    """Moves the tensors to two shards, with one tensor in both or missing in the index."""

    def apply(folder: Path) -> None:
        held = {name: t.read() for name, t in read_checkpoint(folder).tensors.items()}
        names = list(held)
        first, second = names[:5], names[5:]
        write_safetensors(folder / "a.safetensors", {n: held[n] for n in first})
        both = second + first[:1] if twice else second
        write_safetensors(folder / "b.safetensors", {n: held[n] for n in both})
        where = dict.fromkeys(first, "a.safetensors") | dict.fromkeys(second, "b.safetensors")
        if not listed:
            del where[names[-1]]
        (folder / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


def beside(scale: float, only: str = "") -> Callable[[Path], None]:
    """Adds another file of weights, of the tensors whose name begins so; else of others."""

    def apply(folder: Path) -> None:
        held = {n: scale * t.read() for n, t in read_checkpoint(folder).tensors.items()}
        kept = {name: array for name, array in held.items() if name.startswith(only)}
        np.savez(folder / "old.npz", **(kept or {"step": np.ones(1)}))

    return apply


def jinja(text: str) -> Callable[[Path], None]:
    return lambda folder: _write(folder / "chat_template.jinja", text)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


INDEX = np.ones(8, np.float32)
HEAD = "lm_head.weight"
FAULTS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "tied, but different": (
        config(tie_word_embeddings=True),
        "wrong",
        "weights",
        "1 different, but one weight in this model: model.embed_tokens.weight and lm_head",
    ),
    "untied, but no head": (tensors(**{HEAD: None}), "wrong", "weights", "1 missing: lm_head"),
    "ties by default": (
        config(tie_word_embeddings=None),
        "note",
        "config.json: tie_word_embeddings",
        "defaults of loaders differ",
    ),
    "ties by default, with no head": (
        several(config(tie_word_embeddings=None), tensors(**{HEAD: None})),
        "risky",
        "config.json: tie_word_embeddings",
        "defaults of loaders differ",
    ),
    "interleaved": (trained("pairs"), "risky", "weights: queries", "the other rotary layout"),
    "two scalings": (
        config(
            rope_theta=None,
            rope_scaling={"type": "linear", "factor": 2.0},
            rope_parameters={"rope_type": "linear", "factor": 4.0},
        ),
        "wrong",
        "config.json",
        "rope_parameters.factor and rope_scaling.factor must have the same value",
    ),
    "unknown field": (config(flux=3), "wrong", "config.json", "does not know the field"),
    "unread field": (
        config(pretraining_tp=2),
        "note",
        "config.json: pretraining_tp",
        "does not depend on it",
    ),
    "unused tensor": (
        tensors(**{"model.layers.0.self_attn.rotary_emb.inv_freq": INDEX}),
        "note",
        "weights: model.layers.0.self_attn.rotary_emb.inv_freq",
        "computed from the config",
    ),
    "unexpected tensor": (tensors(extra=INDEX), "wrong", "weights", "1 unexpected: extra"),
    "tensor in two shards": (sharded(twice=True), "wrong", "weights", "in `a.safetensors` and"),
    "tensor not in the index": (
        sharded(listed=False),
        "wrong",
        "weights",
        "no tensor that the",
    ),
    "other weights": (beside(2.0), "risky", "old.npz", "other numbers than the weights"),
    "a copy of the weights": (beside(1.0), "note", "old.npz", "a copy of the weights"),
    "a part of the weights": (
        beside(1.0, "lm_head"),
        "risky",
        "old.npz",
        "a part of the weights",
    ),
    "a file of an optimizer": (
        beside(0.0, "x"),
        "note",
        "old.npz",
        "none that the model needs",
    ),
    "NaN": (planted(UP, (0, 0), np.nan), "wrong", f"weights: {UP}", "NaN or infinity"),
    "infinity": (planted(UP, (1, 1), -np.inf), "wrong", f"weights: {UP}", "NaN or infinity"),
    "not initialised": (
        tensors(**{UP: np.zeros((24, 32), np.float32)}),
        "risky",
        f"weights: {UP}",
        "never trained",
    ),
    "beyond float16": (planted(UP, (2, 2), 1e5), "risky", f"weights: {UP}", "beyond 65504"),
    "beyond the declared dtype": (
        several(config(dtype="float16"), planted(UP, (2, 2), 1e5)),
        "wrong",
        f"weights: {UP}",
        "the dtype of the config",
    ),
    "another dtype": (
        config(dtype="bfloat16"),
        "risky",
        "config.json: dtype",
        "says bfloat16, but the weights are float32",
    ),
    "several dtypes": (
        tensors(**{UP: np.ones((24, 32), np.float16) * np.arange(32, dtype=np.float16)}),
        "note",
        "weights",
        "several dtypes: float16, float32",
    ),
    "ends disagree": (
        options(eos_token_id=38),
        "risky",
        "generation_config.json: eos_token_id",
        "the end token differs",
    ),
    "more ends": (
        options(eos_token_id=[1, 38]),
        "note",
        "config.json: eos_token_id, tokenizer_config.json: eos_token",
        "the end token differs",
    ),
    "starts disagree": (
        config(bos_token_id=37),
        "risky",
        "config.json: bos_token_id",
        "the start token differs",
    ),
    "end beyond the rows": (
        options(eos_token_id=[1, 77]),
        "wrong",
        "generation_config.json: eos_token_id",
        "77 is beyond the 40 rows of the model",
    ),
    "padding beyond the rows": (
        several(options(pad_token_id=None), settings(pad_token="[PAD]")),
        "wrong",
        "tokenizer",
        "ids up to 40, but the model has 40 rows",
    ),
    "class with other tokens": (
        settings(extra_special_tokens=["hel"]),
        "risky",
        "tokenizer_config.json: tokenizer_class",
        "give other tokens for 'hello' than tokenizer.json alone",
    ),
    "padding that ends": (
        several(options(pad_token_id=1), settings(pad_token="</s>")),
        "risky",
        "tokenizer: pad_token",
        "never learns the end",
    ),
    "no template": (settings(chat_template=None), "note", "tokenizer", "no chat template"),
    "template fails": (
        settings(chat_template="{{ nothing.at.all }}"),
        "wrong",
        "tokenizer_config.json: chat_template",
        "cannot be rendered",
    ),
    "template of other tokens": (
        settings(chat_template=TEMPLATE.replace("im_end", "eot")),
        "risky",
        "tokenizer_config.json: chat_template",
        "writes <|eot|>, which is not one token",
    ),
    "two templates": (
        jinja(TEMPLATE + " "),
        "risky",
        "chat_template.jinja",
        "another template than tokenizer_config.json: chat_template",
    ),
    "no system message": (
        settings(
            chat_template="{% if messages[0].role == 'system' %}{{ raise_exception('no') }}"
            "{% endif %}" + TEMPLATE
        ),
        "note",
        "tokenizer_config.json: chat_template",
        "refuses a message of the role `system`",
    ),
    "temperature without sampling": (
        options(temperature=0.5),
        "risky",
        "generation_config.json: temperature",
        "`do_sample` is not true",
    ),
    "unsupported option": (
        options(penalty_alpha=0.6),
        "wrong",
        "generation_config.json",
        "penalty_alpha is 0.6, which is not supported",
    ),
    "option in the config": (
        config(repetition_penalty=1.3),
        "note",
        "config.json: repetition_penalty",
        "that generation_config.json replaces",
    ),
}


def test_a_clean_folder_has_no_finding(folder: Path) -> None:
    assert audit(str(folder)) == []
    trained("halves")(folder)
    assert audit(str(folder)) == []


@pytest.mark.few(6)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(folder: Path, name: str) -> None:
    plant, level, where, what = FAULTS[name]
    plant(folder)
    found = audit(str(folder))
    own = [each for each in found if each.where.startswith(where) and what in each.what]
    assert [each.level for each in own] == [level], found
    # The levels are in order, and nothing is said of what is not at fault.
    assert [each.level for each in found] == sorted(
        (e.level for e in found), key=list(LEVELS).index
    )
    assert len(found) <= 3, found


def test_a_field_that_the_caller_ignores(folder: Path) -> None:
    change(folder, "config.json", flux=3)
    (found,) = audit(str(folder), ["flux"])
    assert (found.level, found.where) == ("risky", "config.json: flux")


def test_images_of_another_size(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert audit(str(tmp_path)) == []
    change(tmp_path, "preprocessor_config.json", size={"height": 9, "width": 8})
    change(tmp_path, "generation_config.json", do_sample=True)
    size, options = audit(str(tmp_path))
    assert size.what == "images become 9 x 8, but the model takes 8 x 8"
    assert options.what == "options of decoding beside a model that does not generate"
    (tmp_path / "preprocessor_config.json").unlink()
    assert audit(str(tmp_path))[0].where == "preprocessor_config.json"


def test_rows_without_a_token(folder: Path) -> None:
    change(folder, "config.json", vocab_size=ROWS + 3)
    names = ("model.embed_tokens.weight", HEAD)
    larger = {name: np.resize(weight(folder, name), (ROWS + 3, 32)) for name in names}
    change_weights(folder, **larger)
    lacking = ROWS + 3 - len(LETTERS)
    (found,) = audit(str(folder))
    assert found.what == f"{lacking} of the {ROWS + 3} rows of the model have no token"
    assert found.archdsl == "never chooses them"


def test_the_table_and_the_exit_status(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: nothing found\n"
    change(folder, "generation_config.json", eos_token_id=[1, 77])
    change(folder, "config.json", pretraining_tp=2)
    assert main(["audit", str(folder)]) == 1
    assert capsys.readouterr().out.splitlines()[:4] == [
        "wrong   generation_config.json: eos_token_id",
        "        77 is beyond the 40 rows of the model",
        "        archdsl never meets such a token",
        "note    config.json: pretraining_tp",
    ]
    assert main(["audit", str(folder), "--json"]) == 1
    first = json.loads(capsys.readouterr().out)[0]
    assert Finding(**first).where == "generation_config.json: eos_token_id"


def test_a_file_that_cannot_be_read_is_one_finding(folder: Path) -> None:
    """Two checks read it."""
    _write(folder / "generation_config.json", "{")
    own = [each for each in audit(str(folder)) if each.where == "generation_config.json"]
    assert [each.level for each in own] == ["wrong"]
    assert "cannot read the file as a config" in own[0].what


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "no/such/folder"]) == 1
    assert "error[file]" in capsys.readouterr().err
