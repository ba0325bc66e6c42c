"""Vocabulary files, longest-match-first tokenization, and errors."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.text.vocabulary_tokenizer import VocabularyTokenizer, read_vocabulary

TOKENS = ["<unk>", "<pad>", "<sos>", "<eos>", "C", "Cl", "O", "(", ")", "=", "[nH]", " ", "Ω"]


def refusal(act: Callable[[], object]) -> Diagnostic:
    with pytest.raises(ArchError) as caught:
        act()
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def write(path: Path, content: object) -> Path:
    """Writes the content in the format of the suffix: JSON, a pickle, bytes or text."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        path.write_text(str(content), encoding="utf-8")
    return path


# Files


NUMBERS = {token: number for number, token in enumerate(TOKENS)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.txt", "\n".join(TOKENS)),
        ("v.vocab", "\n".join(TOKENS) + "\n"),
        ("v.TXT", ("\ufeff" + "\r\n".join(TOKENS) + "\r\n").encode()),
        ("v.json", TOKENS),
        ("v.json", dict(reversed(NUMBERS.items()))),
        ("v.json", {"itos": TOKENS, "stoi": NUMBERS}),
        ("v.pkl", TOKENS),
        ("v.pkl", NUMBERS),
        ("v.pkl", {"itos": TOKENS}),
        ("v.pkl", {"stoi": NUMBERS}),
        ("v.pkl", {"itos": TOKENS, "stoi": NUMBERS, "freqs": {"C": 75803960}}),
        ("v.pickle", pickle.dumps({"itos": TOKENS}, protocol=0)),
    ],
)
def test_every_format_gives_the_same_tokenizer(
    tmp_path: Path, name: str, content: object
) -> None:
    tokenizer = read_vocabulary(write(tmp_path / name, content))
    assert tokenizer.tokens == tuple(TOKENS)
    assert len(tokenizer) == len(TOKENS)
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (1, 2, 3)
    assert tokenizer.encode("OC Cl(Ω)", bos=True, eos=True) == [2, 6, 4, 11, 5, 7, 12, 8, 3]


@pytest.mark.parametrize(
    ("name", "content", "message", "found"),
    [
        ("v.txt", "", "`{}` has no tokens", None),
        ("v.json", [], "`{}` has no tokens", None),
        ("v.json", {}, "`{}` has no tokens", None),
        ("v.txt", "a\n\nb\n", "token 1 of `{}` is empty", None),
        ("v.txt", "a\nb\na\n", "`{}` has the token `a` twice", "the ids 0 and 2"),
        ("v.txt", b"a\n\xff\n", "`{}` is not UTF-8 text", None),
        ("v.json", b'{"a": 0, "b": 1, "a": 2}', "`{}` has the key `a` twice", None),
        ("v.json", b"[1, 2", "`{}` is not JSON", None),
        ("v.json", b"[" * 100_000, "`{}` is not JSON", None),
        ("v.json", ["a", 3], "a token of `{}` is not a text", "3"),
        ("v.json", 3, "`{}` is not a vocabulary", "a value of type `int`"),
        ("v.json", {"a": "0"}, "`{}` does not map tokens to ids", "'a': '0'"),
        ("v.json", {"a": True}, "`{}` does not map tokens to ids", "'a': True"),
        ("v.json", {"a": 0, "b": 0}, "two tokens of `{}` have the id 0", "`a` and `b`"),
        (
            "v.json",
            {"a": 1, "b": 2},
            "the token ids of `{}` have gaps",
            "no id 0; the ids are 1 to 2",
        ),
        (
            "v.json",
            {"a": -1, "b": 0},
            "the token ids of `{}` have gaps",
            "no id 1; the ids are -1 to 0",
        ),
        (
            "v.pkl",
            {"itos": ["a", "b"], "stoi": {"a": 1, "b": 0}},
            "`itos` and `stoi` of `{}` disagree",
            "token 0 is `a` in `itos`, `b` in `stoi`",
        ),
        (
            "v.pkl",
            {"itos": ["a", "b"], "stoi": {"a": 0}},
            "`itos` and `stoi` of `{}` disagree",
            "2 and 1 tokens",
        ),
        ("v.pkl", b"", "`{}` is not a pickle of plain lists and dicts", "EOFError"),
        ("v.pkl", b"\x80\x04garbage", "`{}` is not a pickle of plain lists and dicts", None),
    ],
)
def test_files_that_are_no_vocabulary(
    tmp_path: Path, name: str, content: object, message: str, found: str | None
) -> None:
    path = write(tmp_path / name, content)
    diagnostic = refusal(lambda: read_vocabulary(path))
    assert diagnostic.code == "tokenizer"
    assert diagnostic.message == message.format(path)
    if found is not None:
        assert diagnostic.found == found


def test_an_unknown_suffix_is_an_error(tmp_path: Path) -> None:
    diagnostic = refusal(lambda: read_vocabulary(write(tmp_path / "v.bin", b"a")))
    assert diagnostic.expected == "`.txt`, `.vocab`, `.json`, `.pkl` or `.pickle`"
    assert diagnostic.found == "`.bin`"
    assert refusal(lambda: read_vocabulary("v")).found == "no suffix"


def test_a_file_that_cannot_be_read_is_a_file_error(tmp_path: Path) -> None:
    missing = tmp_path / "v.txt"
    diagnostic = refusal(lambda: read_vocabulary(missing))
    assert diagnostic.code == "file"
    assert diagnostic.message == f"cannot read `{missing}`: No such file or directory"
    (tmp_path / "folder.json").mkdir()
    assert refusal(lambda: read_vocabulary(tmp_path / "folder.json")).code == "file"


class Bomb:
    """Writes the file when it is unpickled without restrictions."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_code_in_a_pickle_runs(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    data = pickle.dumps({"itos": TOKENS, "extra": Bomb(trace)}, protocol=protocol)
    pickle.loads(data)
    assert trace.exists()
    trace.unlink()

    diagnostic = refusal(lambda: read_vocabulary(write(tmp_path / "v.pkl", data)))
    assert diagnostic.message.endswith("is not a pickle of plain lists and dicts")
    assert diagnostic.found is not None
    assert diagnostic.found.startswith("it refers to `")
    assert "JSON" in (diagnostic.help or "")
    assert not trace.exists()


def test_even_harmless_classes_in_a_pickle_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.pkl", {"stoi": collections.defaultdict(int, NUMBERS)})
    found = refusal(lambda: read_vocabulary(path)).found
    assert found == "it refers to `collections.defaultdict`"


def test_a_damaged_pickle_is_a_diagnostic(tmp_path: Path) -> None:
    whole = pickle.dumps({"itos": TOKENS, "stoi": NUMBERS})
    dice = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        data[dice.randrange(len(data))] = dice.randrange(128)
        with contextlib.suppress(ArchError):
            read_vocabulary(write(tmp_path / "v.pkl", bytes(data)))


def test_a_huge_index_in_a_pickle_takes_no_memory(tmp_path: Path) -> None:
    put = b"r\xff\xff\xff\x7f"  # the memo index 2**31 - 1
    path = write(tmp_path / "v.pkl", b"\x80\x04(\x8c\x01a" + put + b"l.")
    assert read_vocabulary(path).tokens == ("a",)


# Special tokens


def test_special_tokens_are_found_by_their_usual_names() -> None:
    tokenizer = VocabularyTokenizer(["a", "[PAD]", "</s>", "<s>"])
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (3, 2, 1)


def test_special_tokens_can_be_named() -> None:
    tokenizer = VocabularyTokenizer(["^", "$", "a", "_"], bos="^", eos="$", pad="_")
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (0, 1, 3)
    assert tokenizer.encode("a", bos=True, eos=True) == [0, 2, 1]
    assert refusal(lambda: tokenizer.encode("a$")).message.endswith("matches `$`")


def test_a_given_name_overrides_the_usual_ones() -> None:
    tokenizer = VocabularyTokenizer(["<s>", "<go>", "</s>"], bos="<go>")
    assert tokenizer.bos == 1


def test_a_name_that_is_not_in_the_vocabulary_is_refused() -> None:
    with pytest.raises(ArchError) as caught:
        VocabularyTokenizer(TOKENS, bos="<soz>", eos="stop")
    bos, eos = caught.value.diagnostics
    assert bos.message == "the start token is not in `vocabulary`"
    assert bos.found == "`<soz>`"
    assert bos.help == "did you mean `<sos>`?"
    assert eos.found == "`stop`"


@pytest.mark.parametrize("role", ["bos", "eos", "pad"])
def test_a_special_token_is_required_only_when_used(role: str) -> None:
    tokenizer = VocabularyTokenizer(["a", "b"])
    assert tokenizer.encode("ab") == [0, 1]
    assert tokenizer.decode([0, 1]) == "ab"
    diagnostic = refusal(lambda: getattr(tokenizer, role))
    assert diagnostic.found == "none of them"
    assert diagnostic.help == f"name the token with `{role}=…` (`--{role}` on the command line)"


def test_two_usual_names_for_one_role_ask_for_a_choice() -> None:
    tokens = ["a", "</s>", "<|endoftext|>"]
    diagnostic = refusal(lambda: VocabularyTokenizer(tokens).encode("a", eos=True))
    assert diagnostic.found == "`</s>` and `<|endoftext|>`"
    assert VocabularyTokenizer(tokens, eos="</s>").encode("a", eos=True) == [0, 1]


# Encoding and decoding


def test_the_longest_token_is_taken() -> None:
    tokenizer = VocabularyTokenizer(["a", "ab", "abc", "c", "b"])
    assert tokenizer.encode("abcababb") == [2, 1, 1, 4]
    assert tokenizer.encode("") == []


def test_special_tokens_never_match_text() -> None:
    tokenizer = VocabularyTokenizer([*TOKENS, "<", ">", "s", "o"])
    assert tokenizer.encode("<sos>") == [13, 15, 16, 15, 14]
    encode = VocabularyTokenizer(TOKENS).encode
    for text in ("<sos>", "<eos>", "<unk>", "<pad>"):
        assert refusal(partial(encode, text)).message.endswith("matches `<`")


def test_a_character_that_no_token_matches_is_an_error_with_its_place() -> None:
    tokenizer = VocabularyTokenizer(TOKENS)
    with pytest.raises(ArchError) as caught:
        tokenizer.encode("CCCCCCCCCCCC[Fe]OOOOOOOOOOOO")
    assert str(caught.value) == "\n".join(
        [
            "text:1:13: error[tokenizer]: no token of `vocabulary` matches `[`",
            "  |",
            "1 | CCCCCCCCCCCC[Fe]OOOOOOOOOOOO",
            "  |             ^",
            "  = found: `CCCCCCCCCC[Fe]OOOOOOO`",
            "  = help: tokens that start with it: `[nH]`",
        ]
    )


def test_an_invisible_character_is_shown_by_its_escape() -> None:
    diagnostic = refusal(lambda: VocabularyTokenizer(TOKENS).encode("CO\n"))
    assert diagnostic.message == "no token of `vocabulary` matches `\\n`"
    assert diagnostic.found == "`CO\\n`"
    assert diagnostic.help is None


def test_decoding_is_the_inverse_of_encoding() -> None:
    tokenizer = VocabularyTokenizer(TOKENS)
    dice = random.Random(0)
    for _ in range(200):
        text = "".join(dice.choices(TOKENS[4:], k=dice.randrange(20)))
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(tokenizer.encode(text, bos=True, eos=True)) == text


def test_decoding_stops_at_the_end_token() -> None:
    tokenizer = VocabularyTokenizer(TOKENS)
    assert tokenizer.decode([2, 4, 1, 2, 6, 3, 5, 3]) == "CO"
    assert tokenizer.decode(np.array([2, 4, 6])) == "CO"
    assert tokenizer.decode([3, 4]) == ""


def test_decoding_does_not_hide_an_unknown_token() -> None:
    assert VocabularyTokenizer(TOKENS).decode([2, 4, 0, 6, 3]) == "C<unk>O"


def test_one_token_can_serve_both_ends() -> None:
    tokenizer = VocabularyTokenizer(["|", "a"], bos="|", eos="|")
    assert tokenizer.encode("aa", bos=True, eos=True) == [0, 1, 1, 0]
    assert tokenizer.decode([0, 1, 1, 0, 1]) == "aa"


@pytest.mark.parametrize("number", [-1, len(TOKENS)])
def test_a_number_outside_the_vocabulary_is_an_error(number: int) -> None:
    diagnostic = refusal(lambda: VocabularyTokenizer(TOKENS).decode([4, number]))
    assert diagnostic.expected == f"0 to {len(TOKENS) - 1}"
    assert diagnostic.found == str(number)


# A published vocabulary


def annalog_folder() -> Path:
    """Where annalog is installed; found without running its code, which wants rdkit."""
    spec = importlib.util.find_spec("annalog")
    if spec is None or spec.origin is None:
        pytest.skip("annalog is not installed: its vocabulary and tokenizer are the reference")
    return Path(spec.origin).parent


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("annalog_vocabulary", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "C[C@H](N)C(=O)O",
    "Clc1ccccc1Br",
    "BrCCCl",
    "O=[N+]([O-])c1ccc(Cl)cc1",
    "F/C=C/F",
    "F/C=C\\F",
    "C#CC1CC1",
    "c1ccc2[nH]ccc2c1",
    "[O-]C(=O)C[N+](C)(C)C",
    "C[S@@](=O)c1ccccc1",
    "CC1=C(C(CCC1)(C)C)/C=C/C(=C/C=C/C(=C/C(=O)O)/C)/C",
    "C1CC2CC3CC4CC5CC6CC7CC8CC9CC%10CC%11CC%12CC1",
    "OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O",
    "c1cc[o+]cc1.[C-]#[O]",
]


def test_annalogs_vocabulary_tokenizes_as_annalog_does() -> None:
    folder = annalog_folder()
    reference = load(folder / "model_files" / "vocabulary.py").SMILESTokenizer()
    tokenizer = read_vocabulary(folder / "ckpt_and_vocab" / "stereo_experiment_vocab_ttf.pkl")
    assert len(tokenizer) == 59
    assert (tokenizer.tokens[0], tokenizer.pad, tokenizer.bos, tokenizer.eos) == (
        "<unk>",
        1,
        2,
        3,
    )

    dice = random.Random(0)
    ordinary = tokenizer.tokens[4:]
    made = ["".join(dice.choices(ordinary, k=dice.randrange(60))) for _ in range(2000)]
    for text in MOLECULES + made:
        expected = reference.tokenize(text)
        assert [tokenizer.tokens[i] for i in tokenizer.encode(text)] == expected
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unknown_characters_of_annalog_are_errors() -> None:
    folder = annalog_folder()
    tokenizer = read_vocabulary(folder / "ckpt_and_vocab" / "stereo_experiment_vocab_ttf.pkl")
    for text, column in (("CCP", 3), ("C[Fe+2]", 2), ("B(O)O", 1), ("C%99", 2), ("C I", 2)):
        diagnostic = refusal(partial(tokenizer.encode, text))
        assert diagnostic.span is not None
        assert diagnostic.span.column == column
