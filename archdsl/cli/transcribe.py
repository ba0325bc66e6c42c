"""`archdsl transcribe`: speech in WAV files to text."""

from __future__ import annotations

import argparse

from archdsl.cli.checkpoints import add_checkpoint, find_files, load_model
from archdsl.cli.common import Subparsers, add_command, add_json, print_note
from archdsl.cli.progress_line import print_json, print_text
from archdsl.diagnostics import fail
from archdsl.formats import resolve
from archdsl.generation.generation_config import SPEECH, read_generation_config
from archdsl.tasks.sound import read_spectrogram, read_wav, resample
from archdsl.text.tokenizer import read_tokenizer


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "transcribe",
        "CHECKPOINT AUDIO.wav ...",
        "archdsl transcribe some/whisper speech.wav --language en",
        "archdsl transcribe some/whisper rede.wav --task translate --json",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "audio",
        metavar="AUDIO.wav",
        nargs="+",
        help="WAV files, any sampling rate and channels",
    )
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or a file (default: CHECKPOINT)"
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="of the speech, such as en (default: the checkpoint's, or detected in each file)",
    )
    parser.add_argument(
        "--task",
        choices=("transcribe", "translate"),
        help="`translate` writes English for any language (default: the checkpoint's, or "
        "transcribe)",
    )
    add_json(parser, "file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    files = find_files(args)
    source = args.tokenizer or files
    if source is None:
        fail(
            "argument-value",
            f"`{args.spec}` is a spec, which has no tokenizer",
            expected="--tokenizer PATH",
        )
    # imports tinygrad
    from archdsl.tasks.transcribe import Segment, Transcriber, find_audio_input, join_text

    tokenizer = read_tokenizer(source)
    folder = resolve(files or args.spec)  # a spec has no config files
    config = read_generation_config(folder, SPEECH)
    # All files are read before the model, so that an error in one is reported at once.
    sounds = [read_wav(path) for path in args.audio]
    model = load_model(args)
    spectrogram = read_spectrogram(folder, find_audio_input(model.graph).bins)
    transcribe = Transcriber(model, tokenizer, spectrogram, config, args.language, args.task)
    for path, (samples, rate) in zip(args.audio, sounds, strict=True):
        if len(args.audio) > 1 and not args.json:
            print_text(path)
        segments: list[Segment] = []
        for segment in transcribe(resample(samples, rate, spectrogram.rate)):
            segments.append(segment)
            if not args.json:
                print_text(segment.text)
            if not segment.finished:
                print_note(
                    f"{path}: the text from {segment.start:.1f} s to {segment.end:.1f} s is "
                    "cut off at the maximum length"
                )
        if args.json:
            windows = [
                {"start": s.start, "end": s.end, "text": s.text, "finished": s.finished}
                for s in segments
            ]
            text = join_text(segments)
            found = {"file": path, "language": segments[0].language, "text": text}
            print_json({**found, "windows": windows})
    return 0
