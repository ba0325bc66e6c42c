"""Folders that sentence-transformers saves: its poolings, and its maximum length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archdsl.cli import main
from archdsl.tasks.embed import read_pooling

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrst"]
TEXTS = ["a b c", "d e f g h i j k l m n o p q"]  # the second is longer than the limit


@pytest.mark.long
@pytest.mark.reference("torch", "transformers", "sentence_transformers")
@pytest.mark.parametrize("pool", ["lasttoken", "weightedmean"])
def test_vectors_of_each_pooling(
    pool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 32}
    sizes |= {"num_attention_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 24}
    bare, saved = str(tmp_path / "bare"), str(tmp_path / "saved")
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(bare)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    vocabulary = str(tmp_path / "vocab.txt")
    transformers.BertTokenizer(vocabulary, model_max_length=9).save_pretrained(bare)
    theirs = SentenceTransformer(modules=[Transformer(bare), Pooling(16, pool)], device="cpu")
    theirs.save(saved)
    assert read_pooling(saved).pool == pool

    output = str(tmp_path / "v.npy")
    assert main(["embed", saved, *TEXTS, "--device", "CPU", "-o", output]) == 0
    assert "truncated to 9 tokens: text 2" in capsys.readouterr().err
    np.testing.assert_allclose(np.load(output), theirs.encode(TEXTS), rtol=1e-4, atol=1e-5)
