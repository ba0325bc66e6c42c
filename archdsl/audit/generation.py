"""Decoding options and preprocessor settings: fields that nobody obeys, and other sizes."""

from __future__ import annotations

from archdsl.audit.findings import NOTE, RISKY, Findings, some
from archdsl.audit.opened import Opened
from archdsl.diagnostics import ArchError
from archdsl.generation.generation_config import (
    KINDS,
    SEARCH,
    SPEECH,
    TEXT,
    Task,
    read_generation_config,
)
from archdsl.graph.nodes import Graph
from archdsl.passes.split_decoding import find_tokens_and_logits
from archdsl.tasks.classify import find_classifier, read_preprocessor
from archdsl.tasks.sound import read_spectrogram
from archdsl.tasks.transcribe import find_audio_input
from archdsl.tasks.translate import find_roles

_FILE, _GENERAL, _PIXELS = "generation_config.json", "config.json", "preprocessor_config.json"
# Fields of sampling, and the value with which each has no effect.
_SAMPLING = {"temperature": 1, "top_k": 50, "top_p": 1, "min_p": 0, "typical_p": 1}


def check(opened: Opened, findings: Findings) -> None:
    graph = opened.graph
    if graph is None or not opened.is_folder:
        return
    task = _task(graph)
    if task is not None:
        with findings.refusals(_FILE if _FILE in opened.files else _GENERAL):
            read_generation_config(opened.place, task)
        _check_unused(opened, findings)
    elif _FILE in opened.files:
        what = "options of decoding beside a model that does not generate"
        findings.add(NOTE, _FILE, what, "does not read it")
    _check_preprocessor(opened, graph, findings)


def _task(graph: Graph) -> Task | None:
    """The task whose options a model follows; None if it does not generate."""
    for find, task in ((find_audio_input, SPEECH), (find_roles, SEARCH)):
        try:
            find(graph)
        except ArchError:
            continue
        return task
    generates = not isinstance(find_tokens_and_logits(graph), str)
    return TEXT if generates and len(graph.inputs) == 1 else None


def _check_unused(opened: Opened, findings: Findings) -> None:
    """Reports options that have no effect where they are."""
    own = opened.config(_FILE)
    if _FILE not in opened.files:
        return
    idle = [n for n, value in _SAMPLING.items() if own.get(n) not in (None, value)]
    if idle and not own.get("do_sample"):
        findings.add(
            RISKY,
            f"{_FILE}: {some(idle)}",
            "nobody obeys it, because `do_sample` is not true",
            "takes the likeliest token, as transformers does",
        )
    config = opened.config()
    before = [n for n in KINDS if n in config and not n.endswith("_token_id")]
    differing = [n for n in before if config[n] is not None and config[n] != own.get(n)]
    if differing:
        findings.add(
            NOTE,
            f"{_GENERAL}: {some(differing)}",
            f"options of decoding that {_FILE} replaces",
            f"does not read them beside {_FILE}",
        )


def _check_preprocessor(opened: Opened, graph: Graph, findings: Findings) -> None:
    try:
        image = find_classifier(graph).image
    except ArchError:
        image = None
    if image is not None:
        with findings.refusals(_PIXELS, "refuses to classify"):
            steps = read_preprocessor(opened.place)
            wanted = tuple(axis.size.value for axis in image.type.axes[1:])
            sizes = [each for each in (steps.crop, steps.size) if isinstance(each, tuple)]
            if sizes and sizes[0] != wanted:
                what = f"images become {_size(sizes[0])}, but the model takes {_size(wanted)}"
                findings.add(RISKY, _PIXELS, what, "refuses such an image")
    try:
        bins = find_audio_input(graph).bins
    except ArchError:
        return
    with findings.refusals(_PIXELS, "refuses to transcribe"):
        read_spectrogram(opened.place, bins)
    if _PIXELS not in opened.files:
        what = "missing, so loaders take their own settings of the spectrogram"
        findings.add(NOTE, _PIXELS, what, "takes those of Whisper")


def _size(sides: tuple[int | None, ...]) -> str:
    return " x ".join(map(str, sides))
