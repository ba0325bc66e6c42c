"""`archdsl play`: the playground in a browser, with a model that runs on this machine."""

from __future__ import annotations

import argparse
import errno
import signal
import webbrowser
from dataclasses import replace
from pathlib import Path

from archdsl.analysis import split
from archdsl.cli.checkpoints import find_files, find_tokenizer, is_spec
from archdsl.cli.common import Subparsers, add_command, add_device, check_map, print_note
from archdsl.diagnostics import ArchError, Source, did_you_mean, fail, listing
from archdsl.execution.arguments import check_choice
from archdsl.formats import resolve
from archdsl.graph.cost import BYTES
from archdsl.play.given import Given
from archdsl.play.server import LOOPBACK, Server
from archdsl.semantics.library import read, read_text_file, tree
from archdsl.syntax import ast
from archdsl.syntax.printer import format
from archdsl.training.trained import TrainedRun, find_run

_SECONDS = 60.0
_GIGABYTES = 8.0


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "play",
        "[FILE[:VARIANT] | CHECKPOINT]",
        "archdsl play",
        "archdsl play gpt2.arch:small",
        "archdsl play runs/shakespeare",
        "archdsl play gpt.arch --weights trained.safetensors --tokenizer tokenizer.json",
    )
    parser.add_argument(
        "spec",
        nargs="?",
        metavar="FILE",
        help="a spec; or, to run it with its weights, the folder of a training run, a folder "
        "with config.json and weights, or a .gguf file (default: an example)",
    )
    weights = parser.add_argument_group("the model")
    weights.add_argument("--weights", metavar="PATH", help="the weights of a spec")
    weights.add_argument(
        "--map",
        metavar="TITLE",
        help="the spec's `weights` block with the names of the tensors",
    )
    weights.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="a folder or file with a tokenizer (default: that of the checkpoint; without one, "
        "the page takes numbers of tokens)",
    )
    weights.add_argument(
        "--preprocessor",
        metavar="FOLDER",
        help="a folder with preprocessor_config.json, and the names of classes in it or in "
        "config.json (default: the checkpoint; without one, images have values from 0 to 1)",
    )
    add_device(weights, checkpoint=True)
    limits = parser.add_argument_group("limits of a run")
    limits.add_argument(
        "--seconds",
        type=_positive,
        default=_SECONDS,
        metavar="S",
        help="its process ends after S seconds, and so does a check (default: %(default)g)",
    )
    limits.add_argument(
        "--memory",
        type=_positive,
        default=_GIGABYTES,
        metavar="GB",
        help="a model that needs more is refused (default: %(default)g)",
    )
    page = parser.add_argument_group("the page")
    page.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="the port on 127.0.0.1; 0 is a free one (default: %(default)s)",
    )
    page.add_argument(
        "--no-browser", action="store_true", help="only print the address, open no browser"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    given = _given(args)
    try:
        server = Server(given, args.port, args.seconds, round(args.memory * 10**9))
    except OSError as error:
        reason = (
            "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror
        )
        fail(
            "argument-value",
            f"cannot serve on port {args.port} of {LOOPBACK}: {reason}",
            help="choose another one, as in `--port 8765`; `--port 0` takes a free one",
            cause=error,
        )
    with server.serving():
        print_note("Only this machine can open this page. Ctrl-C ends it.")
        print(server.url, flush=True)
        if not args.no_browser:
            webbrowser.open(server.url_once)
        while True:
            signal.pause()


def _given(args: argparse.Namespace) -> Given:
    """What the arguments name; paths are absolute, because the runs are other processes."""
    for name in ("weights", "map"):
        if getattr(args, name) and not (args.spec and is_spec(args.spec)):
            fail(
                "argument-value",
                f"--{name} works only with a spec",
                expected="a spec FILE[:VARIANT]",
                found=f"the checkpoint `{args.spec}`" if args.spec else "no spec",
            )
    check_map(args)
    if args.dtype is not None:
        check_choice("a model cannot be of dtype", args.dtype, BYTES)
    if args.preprocessor:
        from archdsl.tasks.classify import read_preprocessor  # imports tinygrad

        read_preprocessor(args.preprocessor)
    options = Given(
        tokenizer=_absolute(args.tokenizer),
        needs_tokenizer=bool(args.tokenizer),
        files=_absolute(args.preprocessor),
        device=args.device,
        dtype=args.dtype,
    )
    if args.spec is None:
        return options
    options = replace(
        options,
        files=options.files or _absolute(find_files(args)),
        tokenizer=options.tokenizer or _absolute(find_tokenizer(args)),
    )
    if is_spec(args.spec):
        return _of_spec(args, options)
    run = find_run(args.spec)
    return _of_run(run, options) if run else _of_published(args, options)


def _of_spec(args: argparse.Namespace, options: Given) -> Given:
    path, model = split(args.spec)
    source = read(path)
    if model:
        _check_name(source, model)
    return replace(
        options,
        text=source.text,
        model=model,
        title=Path(source.path).name,
        folder=str(Path(source.path).absolute().parent),
        weights=_absolute(args.weights),
        map=args.map,
    )


def _of_run(run: TrainedRun, options: Given) -> Given:
    return replace(
        options,
        text=read_text_file(run.spec),
        title=run.folder.name,
        folder=str(run.folder),
        checkpoint=str(run.folder),
        weights=str(run.weights),
    )


def _of_published(args: argparse.Namespace, options: Given) -> Given:
    from archdsl.pretrained import common_dtype, describe  # imports tinygrad

    found = describe(args.spec)
    return replace(
        options,
        text=format(found.spec),
        title=Path(args.spec).name,
        checkpoint=_absolute(args.spec),
        dtype=options.dtype or common_dtype(found.weights.values()),
    )


def _check_name(source: Source, name: str) -> None:
    """Refuses a name that a text does not have; one with mistakes may have it."""
    try:
        items = tree(source).items
    except ArchError:
        return
    kinds = ast.Model | ast.Variant | ast.Block
    names = [each.name.id for each in items if isinstance(each, kinds)]
    if name not in names:
        fail(
            "model",
            f"`{source.path}` has no model, variant or block `{name}`",
            expected=listing(names) if names else None,
            help=did_you_mean(name, names),
        )


def _absolute(path: str | None) -> str | None:
    if path is None:
        return None
    found = resolve(path).absolute()
    if not found.exists():
        fail("file", f"{path}: file not found")
    return str(found)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number above 0; found `{text}`")
    return number


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535; found `{text}`")
    return int(text)
