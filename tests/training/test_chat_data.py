"""Chats: the loss counts the answers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.analysis import analyse
from archdsl.diagnostics import ArchError
from archdsl.execution import inputs
from archdsl.graph.nodes import Graph
from archdsl.graph.verify import verify
from archdsl.syntax.parser import parse
from archdsl.text.subword_models import letters
from archdsl.training.data import open_data

pytestmark = pytest.mark.reference("tokenizers", "jinja2")

SPEC = """\
model Chat(vocab = 300, context = 256) {
  input tokens: int[T <= context] < vocab
  output logits: float[T, vocab] = tokens -> embed(vocab, 4) -> linear(vocab)
  loss next_token(logits, tokens, where = answers: bool[T])
}
"""
WHERE = ", where = answers: bool[T]"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen 3 does: only the last answer keeps what it begins with.
FORGETS = TEMPLATE.replace("{{ m.content }}", "{{ m.content if loop.last else 'x' }}")
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Bye!"},
            {"role": "assistant", "content": "See you."},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two, three"},
        ]
    },
] * 10


def graph_of(spec: str = SPEC) -> Graph:
    return analyse(parse(spec, "chat.arch"), None, {}).graph


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("tokenizer")
    library = Tokenizer(models.BPE({letters(bytes([n])): n for n in range(256)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    library.save(str(folder / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write(path: Path, chats: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in chats), encoding="utf-8")
    return path


def test_answers_and_their_ends_count(tmp_path: Path, tokenizer: Path) -> None:
    graph = graph_of()
    data = open_data(write(tmp_path / "a.jsonl", CHATS), graph, tokenizer=tokenizer)
    assert data.tokenizer
    assert (len(data.train), len(data.valid or ())) == (18, 2)
    found = data.train.batch(np.arange(18))
    inputs.check(graph, found, labels=True)
    seen = set()
    for tokens, answers in zip(found["tokens"], found["answers"], strict=True):
        assert len(tokens) == len(answers)
        seen.add(data.tokenizer.decode(tokens[answers], skip_special=False))
        whole = data.tokenizer.decode(tokens, skip_special=False).rstrip("\0")
        assert whole.startswith("<|im_start|>")
        assert whole.endswith("<|im_end|>")
    assert seen == {"Yes.<|im_end|>See you.<|im_end|>", "Two, three<|im_end|>"}


def test_a_loss_of_all_tokens_counts_answers_then(tmp_path: Path, tokenizer: Path) -> None:
    path = write(tmp_path / "a.jsonl", CHATS)
    data = open_data(path, graph_of(SPEC.replace(WHERE, "")), tokenizer=tokenizer)
    assert data.graph is not None
    (term,) = data.graph.losses
    assert dict(term.loss.inputs)["where"] == "answers"
    found = data.train.batch(np.arange(18))
    inputs.check(verify(data.graph), found, labels=True)
    same = open_data(path, graph_of(), tokenizer=tokenizer)
    assert same.graph is None
    expected = same.train.batch(np.arange(18))
    for name in ("tokens", "answers"):
        assert np.array_equal(found[name], expected[name])


def test_a_loss_that_counts_other_tokens(tmp_path: Path, tokenizer: Path) -> None:
    graph = graph_of(SPEC.replace(WHERE, ", where = tokens < 200"))
    with pytest.raises(ArchError) as caught:
        open_data(write(tmp_path / "a.jsonl", CHATS), graph, tokenizer=tokenizer)
    message = str(caught.value)
    assert "the loss does not count the answers of a chat alone" in message
    assert "`loss next_token(logits, tokens, where = answers: bool[T])`" in message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (CHATS[0]["messages"][:2], ":2: the chat has no answer to learn"),
        ([], ":2: the chat has no answer to learn"),
        ("Hello", ":2: `messages` is not a list of messages"),
        ([{"role": "assistant"}], "message 0 of the chat has no text in `content`"),
        (
            [{"role": "user", "content": "a" * 300}, CHATS[1]["messages"][1]],
            "`tokens` has a wrong length",
        ),
    ],
)
def test_wrong_chats(tmp_path: Path, tokenizer: Path, messages: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", [CHATS[0], {"messages": messages}])
    with pytest.raises(ArchError) as caught:
        open_data(path, graph_of(), tokenizer=tokenizer)
    assert message in str(caught.value)


def test_a_template_that_changes_earlier_messages(tmp_path: Path, tokenizer: Path) -> None:
    other = tmp_path / "tokenizer"
    other.mkdir()
    (other / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    config = {"chat_template": FORGETS, "eos_token": "<|im_end|>"}
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ArchError) as caught:
        open_data(write(tmp_path / "a.jsonl", CHATS), graph_of(), tokenizer=other)
    assert "the chat template writes message" in str(caught.value)
    assert "give one example for each answer, which ends with it" in str(caught.value)


def test_chats_need_a_template(tmp_path: Path, tokenizer: Path) -> None:
    path = write(tmp_path / "a.jsonl", CHATS)
    with pytest.raises(ArchError, match="chats need the tokenizer of a checkpoint"):
        open_data(path, graph_of())
    with pytest.raises(ArchError, match="has no chat template"):
        open_data(path, graph_of(), tokenizer=tokenizer / "tokenizer.json")
