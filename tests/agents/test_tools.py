"""What a program learns about a spec, and the proposals that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import archdsl
from archdsl.agents import tools
from archdsl.diagnostics import ArchError
from archdsl.graph.ops import OPS

GPT = """use "blocks.arch"
model Mine(vocab = 512, context = 64, D = 32, depth = 2) {
  input tokens: int[T <= context] < vocab
  h = tokens -> embed(vocab, D) -> self_attention_block(heads = 2, causal) * depth
  output logits: float[T, vocab] = h->linear(vocab)
  loss next_token(logits, tokens)
}
"""
LEAKING = GPT.replace(", causal", "")


def test_a_text_is_checked_and_formatted() -> None:
    found = tools.check(GPT, settings={"depth": 3})
    (model,) = found["models"]
    assert model["outputs"] == {"logits": "float[T, vocab = 512]"}
    assert model["params"] == tools.cost(GPT, settings={"depth": 3})["params"]
    assert found["formatted"] == archdsl.format(archdsl.parse(GPT)) != GPT


@pytest.mark.parametrize(
    ("call", "codes"),
    [
        (lambda: tools.check(LEAKING), ["not-causal"]),
        (lambda: tools.check(GPT.replace("heads = 2", "heads = 5")), ["divisibility"]),
        (lambda: tools.check(GPT.replace("linear", "lnear")), ["unknown-name"]),
        (lambda: tools.check("model {"), ["syntax"]),
        (lambda: tools.cost(GPT, "Yours"), ["model"]),
        (lambda: tools.cost(GPT, sizes={"S": 3}), ["axis"]),
        (lambda: tools.cost(GPT, sizes={"T": 65}), ["argument-value"]),
        (lambda: tools.cost("gtp2.arch"), ["file"]),
        (lambda: tools.read("/etc/passwd"), ["file"]),
        (lambda: tools.search("-"), ["argument-value"]),
        (lambda: tools.operators(["nrom"]), ["unknown-name"]),
    ],
)
def test_what_is_wrong_is_refused(call: Callable[[], Any], codes: list[str]) -> None:
    with pytest.raises(ArchError) as raised:
        call()
    assert [each.code for each in raised.value.diagnostics] == codes


def test_cost_depends_on_the_sizes() -> None:
    short, long = (tools.cost("gpt2.arch:xl", sizes={"T": size}) for size in (64, 128))
    assert short["params"] == long["params"] == 1_557_611_200
    assert short["sizes"] == {"T": 64}
    assert 2 < long["flops"] / short["flops"] < 2.1


def test_the_differences_of_two_models() -> None:
    found = tools.diff("gpt.arch", GPT)
    assert found["depth"] == {"left": "12", "right": "2"}
    assert tools.diff("gpt.arch", "gpt.arch") == {}


def test_a_model_is_drawn() -> None:
    boxes = [tools.draw(GPT, level=level).count("<rect") for level in ("model", "operator")]
    assert 2 < boxes[0] < boxes[1]


def test_the_library_is_searched_by_words() -> None:
    assert tools.search("Mixtral")[0]["spec"] == "mistral.arch"
    assert tools.search("multi-head latent attention")[0]["spec"] == "deepseek.arch"
    first = tools.search("GPT2 radford")[0]
    assert first["about"].startswith("GPT-2")
    assert "xl" in first["models"]
    assert tools.search("zzyzx") == []


def test_every_operator_is_described() -> None:
    assert tools.operators().keys() == OPS.keys()
    assert tools.operators(["embed"])["embed"]["example"] == "embed(vocab, D)"


class Client:
    """A client of the command: JSON-RPC 2.0, one message on a line."""

    def __init__(self, server: subprocess.Popen[str]):
        self.server, self.number = server, 0

    def send(self, method: str, params: dict[str, Any], **more: Any) -> None:
        assert self.server.stdin
        message = {"jsonrpc": "2.0", "method": method, "params": params, **more}
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()

    def ask(self, method: str, **params: Any) -> Any:
        self.number += 1
        self.send(method, params, id=self.number)
        assert self.server.stdout
        answer = json.loads(self.server.stdout.readline())
        assert answer["id"] == self.number
        return answer["result"]


@pytest.mark.long
@pytest.mark.reference("mcp")
def test_a_client_of_the_command_gets_a_diagnostic() -> None:
    command = [sys.executable, "-m", "archdsl", "mcp"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        client = Client(server)
        about = {"name": "test", "version": "1"}
        found = client.ask(
            "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=about
        )
        assert "read a spec of the library" in found["instructions"]
        client.send("notifications/initialized", {})
        listed = client.ask("tools/list")["tools"]
        assert [each["name"] for each in listed] == [each.__name__ for each in tools.TOOLS]
        good = client.ask("tools/call", name="check", arguments={"spec": GPT})
        assert not good["isError"]
        assert good["structuredContent"] == tools.check(GPT)
        refused = client.ask("tools/call", name="check", arguments={"spec": LEAKING})
        assert refused["isError"]
        text = refused["content"][0]["text"]
        assert "proposal.arch:6:19: error[not-causal]: next_token" in text
