"""`archdsl train`: trains a model on data, in a folder from which a run can continue."""

from __future__ import annotations

import argparse
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.cli.common import (
    Subparsers,
    add_command,
    add_settings,
    parse_settings,
    positive_integer,
    print_note,
)
from archdsl.cli.on_signal import on_signal
from archdsl.cli.progress_line import print_json, print_text
from archdsl.cli.train_report import Reporter, format_plan
from archdsl.diagnostics import fail
from archdsl.formats.atomic import replacing
from archdsl.training.job import (
    JOB_ROWS,
    Job,
    job_from,
    parse_options,
    read_job_file,
)
from archdsl.training.processes import Shares, is_killed_on_interrupt, processes
from archdsl.training.run_folder import check_folder, toml_value
from archdsl.training.settings import ROWS, Flag, Kind, Maybe, Row, Texts
from archdsl.training.trained import LAST, SETTINGS, SPEC, find_run

if TYPE_CHECKING:
    from archdsl.model import Model
    from archdsl.training.data import Data
    from archdsl.training.plan import Plan

COMMAND = "command.toml"  # in the folder of a run: the data, and how they are read
# What it holds.
_KEPT = ("data", "tokenizer", "device", "devices", "split", "dtype", "kernels")
# What it also holds if an adapter of a checkpoint is trained: the run has no other weights.
_KEPT_BASE = ("init", "quantize", "set")


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "train",
        "[FILE[:VARIANT]]",
        "archdsl train gpt.arch --data texts/ --set depth=6 --steps 2000 -o runs/gpt",
        "archdsl train --config run.toml --learning-rate 1e-3",
        "archdsl train --resume runs/gpt",
        "archdsl train --init some/folder --data notes.txt --lora-rank 8 -o runs/notes",
        exit_status="1 for a mistake; after Ctrl-C, that of the signal: the run is saved first",
    )
    parser.add_argument("spec", nargs="?", metavar="FILE[:VARIANT]", help=_row("spec").help)
    add_settings(parser)
    parser.add_argument(
        "--config",
        metavar="FILE.toml",
        help="read options from a file: their names with _ for -, and a table `set`; other "
        "options override it",
    )
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="continue a run from its last checkpoint, as if it was never interrupted",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print tokens, parameters, memory and time of the run, and stop",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the plan and the events as lines of JSON"
    )
    parser.add_argument(
        "--log-every",
        type=positive_integer,
        default=10,
        metavar="STEPS",
        help="steps between two lines, if stdout is no terminal (default: %(default)s)",
    )
    groups: dict[str, Any] = {}
    for row in (*JOB_ROWS, *ROWS):
        if row.name in ("spec", "set"):
            continue
        if row.about not in groups:
            groups[row.about] = parser.add_argument_group(row.about)
        _add_row(groups[row.about], row)
    parser.set_defaults(run=run)


def _row(name: str) -> Row:
    return next(row for row in JOB_ROWS if row.name == name)


def _add_row(group: Any, row: Row) -> None:
    names = ("-o", row.option) if row.name == "output" else (row.option,)
    if isinstance(row.kind, Flag):
        group.add_argument(
            *names, action=argparse.BooleanOptionalAction, default=None, help=row.help
        )
        return
    group.add_argument(
        *names,
        action="append" if isinstance(row.kind, Texts) else "store",
        metavar=row.metavar or _kind(row).shown,
        help=_help(row),
    )


def _kind(row: Row) -> Kind:
    return row.kind.kind if isinstance(row.kind, Maybe) else row.kind


def _help(row: Row) -> str:
    """The help of an option, with its default."""
    text = row.help.replace("%", "%%")
    if row in JOB_ROWS or "default" in text or row.default in ((), ""):
        return text
    shown = "none" if row.default is None else row.default
    return f"{text} (default: {shown})"


def run(args: argparse.Namespace) -> int:
    job = _read_job(args)
    if job.data is None:
        fail("missing-argument", "there are no data to train on", expected="--data PATH")
    if job.spec is None and job.init is None:
        fail(
            "missing-argument",
            "there is no model to train",
            expected="a spec FILE[:VARIANT], or --init with a published checkpoint",
        )
    if job.output is None and not args.plan:
        fail("missing-argument", "there is no folder for the run", expected="-o FOLDER")
    if job.output is not None and not args.plan and processes().leads:
        check_folder(Path(job.output), args.resume is not None)
    # imports tinygrad
    from archdsl.execution.peak_rate import peak_rate
    from archdsl.training.data import open_data
    from archdsl.training.finetuning import prepare_finetuning
    from archdsl.training.plan import make_plan
    from archdsl.training.split import split_of

    model = _load_model(job)
    settings = job.settings
    tokenizer = _tokenizer(job, model)
    given = (settings.length, tokenizer, settings.seed, settings.pack)
    data = open_data(job.data, model.graph, *given)
    model.adopt(data)
    peak = peak_rate(model.executable)
    trained, frozen = prepare_finetuning(model.executable, settings)
    devices = _devices(job)
    split = split_of(trained.graph, settings, len(devices), job.split, frozen)
    shares = Shares(here=len(devices)) if split else _shares(job)
    plan = make_plan(trained, settings, data, frozen, peak, shares, split)
    if processes().leads:
        _print_plan(args.json, plan, data)
    return 0 if args.plan else _train(args, job, model, data)


# -- what to train --


def _read_job(args: argparse.Namespace) -> Job:
    """The job of the options, of `--config`, and of the run that `--resume` names."""
    names = [row.name for row in (*JOB_ROWS, *ROWS)]
    texts = {name: getattr(args, name) for name in names}
    options = parse_options(texts, lambda: parse_settings(args))
    if args.resume is None:
        given = read_job_file(args.config) if args.config else {}
        if "set" in given and "set" in options:
            options["set"] = given["set"] | options["set"]
        return job_from(given | options)
    for name in ("config", "output", "init", "spec", "set"):
        if getattr(args, name):
            fail(
                "argument-value",
                f"--resume continues a run with its own model, so {name} cannot be given",
                help="begin a new run; `--init` starts it with the weights of another one",
            )
    return job_from(_of_run(Path(args.resume)) | options | {"output": args.resume})


def _of_run(folder: Path) -> dict[str, Any]:
    """What a run was told, as its folder has it."""
    found = {"spec": str(folder / SPEC)}
    for name in (COMMAND, SETTINGS):
        if not (folder / name).is_file():
            fail(
                "file",
                f"`{folder}` is not the folder of a run: it has no {name}",
                help="a run that ended before its first step begins again: give the first "
                "command again",
            )
        found |= read_job_file(folder / name)
    if "init" in found:
        del found["spec"]  # that of the checkpoint, with its weight maps
    return found


def _load_model(job: Job) -> Model:
    """The model, with its first weights."""
    from archdsl.model import build  # imports tinygrad
    from archdsl.pretrained import from_pretrained

    seed, dtype = job.settings.seed, job.dtype or "float32"
    settings, init = job.set or {}, job.init
    spec, weights = job.spec, init
    if spec is None:
        assert init is not None
        options = (job.device, dtype, seed, job.kernels, job.quantize)
        return from_pretrained(init, None, *options, None, (), settings)
    if init is not None and (run := find_run(init)):
        weights = str(run.weights)
    model = build(spec, None, settings, job.device, dtype, seed, job.kernels, job.quantize)
    if weights is not None:
        model.load(weights)
    return model


def _tokenizer(job: Job, model: Model) -> str | None:
    """The tokenizer that is given, or that of the run or of the published checkpoint."""
    if job.tokenizer is not None or job.init is None:
        return job.tokenizer
    if run := find_run(job.init):
        return str(run.tokenizer) if run.tokenizer else None
    reads_text = any(each.type.dtype == "int" and each.type.vars for each in model.graph.inputs)
    return job.init if job.spec is None and reads_text else None


def _devices(job: Job) -> list[str]:
    return job.devices.split(",") if job.devices else []


def _shares(job: Job) -> Shares:
    """The shares of a batch, on several devices or in several processes."""
    if count := len(_devices(job)):
        return Shares(count, count)
    those = processes()
    those.check_batch(job.settings.batch)
    return those.shares()


# -- the run --


def _train(args: argparse.Namespace, job: Job, model: Model, data: Data) -> int:
    assert job.output is not None
    folder = Path(job.output)
    settings = {row.name: getattr(job.settings, row.name) for row in ROWS}
    those = processes()
    reporter = Reporter(job.settings.steps, args.json, args.log_every, lambda: _keep(job))
    if those.leads and is_killed_on_interrupt():
        print_note(
            "SIGUSR2 to mpirun stops the run after a step; Ctrl-C kills it without a checkpoint"
        )
    with ExitStack() as stack:
        if those.leads:
            stack.enter_context(reporter.showing())
            stack.enter_context(on_signal(lambda which: print_note(_stopping(which, folder))))
        result = model.fit(
            folder,
            data=data,
            resume=args.resume is not None,
            report=reporter,
            devices=_devices(job),
            split=job.split,
            **settings,
        )
    if those.leads:
        reporter.end(result)
        if result.signal is not None:
            more = f"`archdsl train --resume {folder}` continues"
            print_note(f"stopped after step {result.step}; {more}")
    those.finish()
    if result.signal is None:
        return 0
    signal.raise_signal(result.signal)  # the process ends as other commands do
    return 128 + result.signal


def _stopping(which: signal.Signals, folder: Path) -> str:
    """Says that a run stops, and where it continues if its process is killed first."""
    last = (folder / LAST).resolve().name
    return (
        f"{which.name}: the run stops after this step; if it is killed before, "
        f"`archdsl train --resume {folder}` continues after step {last}"
    )


def _keep(job: Job) -> None:
    """Writes what `--resume` needs besides the settings into the folder of the run."""
    assert job.output is not None
    assert job.data is not None
    path = Path(job.output) / COMMAND
    whole = replace(job, data=str(Path(job.data).absolute()))
    if job.tokenizer is not None and Path(job.tokenizer).exists():
        whole = replace(whole, tokenizer=str(Path(job.tokenizer).absolute()))
    kept: tuple[str, ...] = _KEPT
    if job.settings.lora_rank is not None and job.spec is None:
        assert job.init is not None
        kept += _KEPT_BASE
        if Path(job.init).exists():
            whole = replace(whole, init=str(Path(job.init).absolute()))
    if whole.devices is not None:
        whole = replace(whole, device=None)
    given = {name: getattr(whole, name) for name in kept}
    lines = [
        f"{name} = {toml_value(each)}\n" for name, each in given.items() if each is not None
    ]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _print_plan(as_json: bool, plan: Plan, data: Data) -> None:
    if as_json:
        print_json({"event": "plan", "data": data.describe(), **plan.as_dict()})
    else:
        print_text(format_plan(plan, data.describe()))
