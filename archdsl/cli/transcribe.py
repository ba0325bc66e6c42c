"""`archdsl transcribe`: what is said in recordings, written down."""

from __future__ import annotations

import argparse
import json

from archdsl.cli.checkpoints import add_checkpoint, is_spec, opened
from archdsl.cli.common import Subparsers, command, say
from archdsl.cli.waiting import put
from archdsl.diagnostics import fail


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "transcribe",
        "write down what is said in recordings",
        "archdsl transcribe some/whisper speech.wav --language en",
    )
    add_checkpoint(parser)
    parser.add_argument("audio", metavar="AUDIO.wav", nargs="+")
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or a file (default: CHECKPOINT)"
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="as in en (default: the checkpoint's, or the likeliest of each file)",
    )
    parser.add_argument(
        "--task",
        choices=("transcribe", "translate"),
        help="`translate` writes English, whatever is spoken (default: the checkpoint's, or "
        "transcribe)",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if is_spec(args.spec) and not args.tokenizer:
        fail("argument-value", "a spec has no tokenizer", help="give one: --tokenizer")
    from archdsl.formats import resolve
    from archdsl.generation.generation_config import SPEECH, read_generation_config
    from archdsl.tasks.sound import read_spectrogram, read_wav, resample
    from archdsl.tasks.transcribe import Segment, Transcriber, join_text, listener
    from archdsl.text.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(args.tokenizer or args.spec)
    folder = resolve(args.spec)  # that of a spec has none of the files
    config = read_generation_config(folder, SPEECH)
    # All files are read before the model is: a mistake in the last one is told at once.
    sounds = [read_wav(path) for path in args.audio]
    model = opened(args)
    spectrogram = read_spectrogram(folder, listener(model.graph)[1])
    write = Transcriber(model, tokenizer, spectrogram, config, args.language, args.task)
    for path, (samples, rate) in zip(args.audio, sounds, strict=True):
        if len(args.audio) > 1 and not args.json:
            put(path)
        segments: list[Segment] = []
        for segment in write(resample(samples, rate, spectrogram.rate)):
            segments.append(segment)
            if not args.json:
                put(segment.text)
            if not segment.finished:
                say(f"{path}: the text from {segment.start:.1f} s on came to no end; cut off")
        if args.json:
            windows = [
                {"start": p.start, "end": p.end, "text": p.text, "finished": p.finished}
                for p in segments
            ]
            found = {
                "file": path,
                "language": segments[0].language,
                "text": join_text(segments),
            }
            put(json.dumps({**found, "windows": windows}))
    return 0
