"""Reports: their numbers are those of the other commands, and their page shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from archdsl.analysis import analyse, analyse_models
from archdsl.cli import main
from archdsl.graph.cost import cost
from archdsl.report.data import report_data
from archdsl.report.markup import formula
from archdsl.report.page import report_page
from archdsl.report.plot import Curve, plot
from archdsl.semantics.library import standard_library
from tests.browser import open_page, screenshot
from tests.suite import some

KINDS = ["gpt2.arch", "transformer.arch", "vit.arch", "jamba.arch", "mistral.arch:Mixtral"]
PARTS = ["Architecture", "Blocks", "FLOPs and memory", "Cache", "Program", "Time"]


@pytest.fixture(scope="module")
def of() -> Callable[[str], dict[str, Any]]:
    """The data of a spec; each is computed once."""
    known: dict[str, dict[str, Any]] = {}

    def data(spec: str) -> dict[str, Any]:
        if spec not in known:
            known[spec] = report_data(analyse(spec).graph)
        return known[spec]

    return data


def page_of(data: dict[str, Any], command: str = "archdsl report x.arch") -> str:
    return report_page(data, '<svg class="archdsl" width="1pt" height="2pt"></svg>', command)


# -- the data --


@pytest.mark.parametrize("spec", some(KINDS, "gpt2.arch", "vit.arch"))
def test_the_facts_are_those_of_check(
    spec: str, of: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", spec, "--json", "--blocks"]) == 0
    name = of(spec)["facts"]["model"]
    models = json.loads(capsys.readouterr().out)["models"]
    (checked,) = [each for each in models if each["model"] == name]
    blocks = checked.pop("blocks")
    assert of(spec)["facts"] == checked
    assert [{key: each[key] for key in blocks[0]} for each in of(spec)["blocks"]] == blocks


KEPT = {
    "transformer.arch": {("cache", None), ("once", None)},
    "jamba.arch": {("cache", None), ("carried", None)},
    "gpt_oss.arch": {("cache", None), ("cache", 128)},
}


@pytest.mark.parametrize("spec", some(KEPT, "transformer.arch"))
def test_each_state_of_the_cache_says_what_it_keeps(
    spec: str, of: Callable[[str], dict[str, Any]]
) -> None:
    graph, cache = analyse(spec).graph, of(spec)["cache"]
    assert {(each["kind"], each["window"]) for each in cache["states"]} == KEPT[spec]
    assert cache["bytes"] == cost(graph).cache_bytes
    fewer = cost(graph, {cache["axis"]: graph.bounds[cache["axis"]] - 1})
    assert cache["bytes_per_token"] == cache["bytes"] - fewer.cache_bytes


@pytest.mark.long
def test_a_latent_is_named(of: Callable[[str], dict[str, Any]]) -> None:
    data = of("deepseek.arch")
    assert all(each["latent"] for each in data["cache"]["states"])
    assert "<td>one latent of all heads, all positions</td>" in page_of(data)


def test_a_model_that_is_not_decoded_has_no_cache(of: Callable[[str], dict[str, Any]]) -> None:
    assert of("vit.arch")["cache"] == {"not_decoded": "its loss is not `next_token`"}


@pytest.mark.parametrize("spec", some(KINDS, "transformer.arch", "vit.arch"))
def test_the_curves_are_the_cost(spec: str, of: Callable[[str], dict[str, Any]]) -> None:
    graph, curves = analyse(spec).graph, of(spec)["curves"]
    assert [each["axis"] for each in curves] == [*graph.bounds] or [curves[0]["axis"]] == [
        "batch"
    ]
    for curve in curves:
        for index, size in enumerate(curve["sizes"]):
            batch = size if curve["axis"] == "batch" else 1
            at = {} if curve["axis"] == "batch" else {curve["axis"]: size}
            found = cost(graph, at)
            assert curve["flops"][index] == found.flops * batch
            assert curve["weight_bytes"][index] == found.weight_bytes
            assert curve["activation_bytes"][index] == found.activation_bytes * batch
            assert curve["cache_bytes"][index] == found.cache_bytes * batch
            parts = curve["flops_by_power"].values()
            assert sum(values[index] for values in parts) == curve["flops"][index]


def test_the_programs_are_those_of_show(
    of: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "gpt2.arch", "--emit", "program"]) == 0
    whole, step = of("gpt2.arch")["programs"]
    printed = f"# whole\n{whole['text']}# {step['title']}\n{step['text']}"
    assert capsys.readouterr().out == printed
    kernels = {each["kernel"]: each for each in whole["kernels"]}
    # Four projections and two layers of an MLP in each of 12 layers, and the unembedding.
    assert kernels["matmul"]["launches"] == 6 * 12 + 1
    assert kernels["matmul"]["operators"] == {"linear": 72, "unembed": 1}
    assert kernels["matmul"]["fused"] == {"add": 24, "gelu_tanh": 12}
    assert whole["tinygrad"] == {"reshape": 48, "posenc": 1}


# -- the page --


class _Checked(HTMLParser):
    """Checks that each tag is closed, and collects headings and what would be loaded."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.mark.parametrize("spec", some(KINDS, "gpt2.arch", "vit.arch"))
def test_the_page_is_whole_and_loads_nothing(
    spec: str, of: Callable[[str], dict[str, Any]]
) -> None:
    data = of(spec)
    text = page_of(data)
    checked = _Checked(text)
    assert checked.headings == PARTS
    assert checked.loaded == []
    assert "url(" not in text
    assert "@import" not in text
    assert f"{data['facts']['params']:,}" in text
    for block in data["blocks"]:
        assert f'data-value="{block["params"]}"' in text
    assert text.count('<svg class="plot"') == 2 * len(data["curves"])


def test_a_model_without_parameters(tmp_path: Path) -> None:
    spec, page = tmp_path / "relu.arch", tmp_path / "relu.html"
    spec.write_text("model M() { input x: float[8]  output y: float[8] = x -> relu }")
    assert main(["report", str(spec), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "No block has parameters or FLOPs." in text
    assert re.findall("<figcaption>(.*?)</figcaption>", text) == ["Memory over <i>batch</i>"]


def test_names_are_escaped(of: Callable[[str], dict[str, Any]]) -> None:
    data = of("vit.arch") | {"programs": []}
    data["facts"] = data["facts"] | {"model": "<i>&"}
    text = page_of(data, "archdsl report 'a<b.arch'")
    assert "<h1>&lt;i&gt;&amp;</h1>" in text
    assert "a&lt;b.arch" in text


def test_a_page_without_measurements_has_no_times(of: Callable[[str], dict[str, Any]]) -> None:
    text = page_of(of("gpt2.arch"))
    _, time = text.split('<h2 id="time">')
    part = unescape(re.sub("<[^>]+>", "", time.partition("<script")[0]))
    assert "archdsl report x.arch --measure" in part
    assert not re.search(r"\d", part)


def measured() -> dict[str, Any]:
    """Times of a run as `measure_times` gives them."""
    work = {
        "workload": "forward, batch of 1, T = 8",
        "compute_roofline_flops_per_second": 2e10,
        "memory_roofline_bytes_per_second": 8e9,
        "expected_seconds": 0.002,
        "limit": "compute",
    }
    ours = {"name": "archdsl", "quartiles": [0.003, 0.004, 0.005], "peak_bytes": 3_000_000}
    return {
        "date": "2026-11-30T01:02:03+00:00",
        "machine": {"system": "Linux", "cpu": "a <CPU>", "threads": 2},
        "versions": {"archdsl": "0.1.0", "tinygrad": "0.14.0", "numpy": "2.4"},
        "device": "CPU",
        "dtype": "float32",
        "rounds": 3,
        "workloads": [{**work, "candidates": [ours]}],
    }


def test_measured_times_stand_beside_the_expected_ones(
    of: Callable[[str], dict[str, Any]],
) -> None:
    text = page_of(of("vit.arch") | {"measured": measured()})
    for words in ("2026-11-30 at 01:02 UTC", "a &lt;CPU&gt;", ">2 ms<", ">4 ms [3 ms, 5 ms]<"):
        assert words in text
    assert ">50%<" in text
    assert "20 GFLOP/s" in text
    assert _Checked(text).headings == PARTS


def test_a_failed_run_says_why(of: Callable[[str], dict[str, Any]]) -> None:
    found = measured()
    found["workloads"][0]["candidates"] = [{"name": "archdsl", "failed": "no memory"}]
    del found["workloads"][0]["expected_seconds"]
    text = page_of(of("vit.arch") | {"measured": found})
    assert "failed: no memory" in text
    assert "There is no expected time" in text


# -- plots and formulas --


def test_stacked_curves_lie_on_each_other() -> None:
    curves = [Curve("a", "weights", (2.0, 2.0)), Curve("b", "cache", (0.0, 6.0))]
    text = plot("Memory", "T", (1, 64), curves, str, stacked=True)
    first, second = (
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polygon .*?points="(.*?)"', text)
    )
    lower, upper = first[:2], second[:2]
    assert second[2:] == lower[::-1]  # the second area begins where the first one ends
    assert upper[0] == lower[0]
    base = first[2][1]
    assert base - upper[1][1] == pytest.approx(4 * (base - lower[1][1]))


def test_one_size_and_zeros_are_drawn() -> None:
    for stacked in (True, False):
        text = plot("FLOPs", "T", (1,), [Curve("all", "all", (0.0,))], str, stacked)
        assert text.count('class="band"') == 1
        assert "nan" not in text


def test_formulas_are_html() -> None:
    assert formula("16 ((N + 257) // 384)^2 - 5") == (
        "16 ((<i>N</i> + 257) // 384)<sup>2</sup> - 5"
    )


# -- the command --


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.html"
    arguments = ["report", "gpt2.arch:small", "--set", "depth=2", "--no-program"]
    assert main([*arguments, "-o", str(path)]) == 0
    assert capsys.readouterr().err == f"wrote {path}\n"
    text = path.read_text(encoding="utf-8")
    assert _Checked(text).headings == [part for part in PARTS if part != "Program"]
    assert "archdsl report gpt2.arch:small --set depth=2 --measure" in text
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads(
        json.dumps(
            report_data(analyse("gpt2.arch:small", settings={"depth": 2}).graph, programs=False)
        )
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gpt.arch", "-o", "a.pdf"], "-o a.pdf: the suffix does not name a page of HTML"),
        (["gpt.arch", "--set", "deep=2"], "deep"),
        (["gpt.arch", "--length", "8"], "--length is an option of a measured run"),
        (["missing.arch"], "missing.arch"),
    ],
)
def test_mistakes(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_json_writes_no_file() -> None:
    with pytest.raises(SystemExit) as raised:
        main(["report", "gpt.arch", "--json", "-o", "a.html"])
    assert raised.value.code == 2


@pytest.mark.slow
def test_a_measured_report(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--set", "depth=1", "--set", "D=48", "--set", "heads=2", "--set", "vocab=64"]
    sizes = ["--length", "16", "--new", "4", "--rounds", "3"]
    assert main(["report", "gpt.arch", *tiny, "--measure", *sizes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["measured"]
    assert found["device"] == "CPU"
    forward, decoding = found["workloads"]
    for work, limit in ((forward, "compute"), (decoding, "memory")):
        (ours,) = work["candidates"]
        assert len(ours["seconds"]) == 3
        assert work["limit"] == limit
        assert 0 < work["expected_seconds"] < min(ours["seconds"])
    graph = analyse("gpt.arch", settings={"depth": 1, "D": 48, "heads": 2, "vocab": 64}).graph
    assert forward["flops"] == cost(graph, {"T": 16}).flops


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(standard_library().glob("*.arch")), ids=lambda p: p.stem
)
def test_every_spec_has_a_report(path: Path) -> None:
    for each in analyse_models(str(path), {}):
        data = report_data(each.graph)
        assert _Checked(page_of(data)).headings == PARTS
        if "states" in data["cache"]:
            assert data["cache"]["bytes"] == data["facts"]["cache_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("spec", KINDS)
def test_the_page_in_a_browser(spec: str, tmp_path: Path) -> None:
    path, name = tmp_path / "page.html", re.sub(r"\W", "_", spec)
    assert main(["report", spec, "-o", str(path)]) == 0
    for width, dark in ((1280, False), (1280, True), (400, False)):
        with open_page(width=width, dark=dark) as page:
            page.goto(path.as_uri())
            # Wide tables scroll; the page does not.
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            screenshot(page, f"report_{name}_{width}{'_dark' if dark else ''}")
            if width == 400:
                continue
            page.locator(".plot .band rect").first.hover()
            shown = page.locator(".plot").first.locator(".band text:visible")
            assert shown.first.inner_html().endswith("= 1")
            column = page.locator(".sortable button").first
            rows = "[...document.querySelectorAll('.sortable tbody tr')]"
            sizes = (
                f"{rows}.filter(r => r.dataset.level == 0).map(r => +r.cells[1].dataset.value)"
            )
            before = page.evaluate(sizes)
            for wanted in (sorted(before, reverse=True), sorted(before), before):
                column.click()
                assert page.evaluate(sizes) == wanted
            page.locator("svg.archdsl g[data-id] .box").last.hover(force=True)
            assert page.locator(".archdsl-tip").inner_text()
    with open_page() as page:
        page.goto(path.as_uri())
        page.emulate_media(media="print")
        screenshot(page, f"report_{name}_print")
