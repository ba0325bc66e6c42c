"""The commands as a user types them: what is printed, where, and the exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.cli import COMMANDS, main
from archdsl.cli.common import GROUPS

ROOT = Path(__file__).parents[2]
SIZES = ("vocab=11", "context=7", "D=8", "heads=2", "depth=1")
TINY = [part for size in SIZES for part in ("--set", size)]
BAD = "model A(n = 3) {\n  input x: float[n]\n  output y: float[n] = x -> rleu\n}\n"


def process(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archdsl", *args]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_check_prints_types_parameters_and_flops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "gpt.arch", *TINY]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "output logits    float[T, vocab = 11], causal along T" in out
    # 11*8 + 7*8 + (2*2*8 + 4*(64+8) + 8*32+32 + 32*8+8) + 2*8 + 8*11+11, by hand
    assert "parameters       1,131" in out


def test_check_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "vit.arch", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["diagnostics"] == []
    (model,) = data["models"]
    assert (model["model"], model["params"]) == ("ViT", 87_747_304)
    assert model["inputs"] == {"pixels": "float[3, image = 224, image = 224]"}


def test_check_prints_all_models_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "model A(n = 3) {\n  input x: float[n]\n  output y: float[n] = x -> relu\n}\n"
    path = tmp_path / "two.arch"
    path.write_text(text + text.replace("model A", "model B"))
    assert main(["check", str(path)]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line in "AB"] == ["A", "B"]
    assert main(["check", f"{path}:B", "--set", "n=5"]) == 0
    assert "float[n = 5]" in capsys.readouterr().out


def test_diagnostics_go_to_stderr_and_the_status_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.arch"
    path.write_text(BAD)
    assert main(["check", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{path}:3:29: error[unknown-name]: there is no block `rleu`\n"
        "  |\n"
        "3 |   output y: float[n] = x -> rleu\n"
        "  |                             ^^^^\n"
        "  = help: did you mean `relu`?\n"
    )
    assert main(["check", str(path), "--json"]) == 1
    (printed,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert printed["place"] == {"path": str(path), "line": 3, "column": 29, "length": 4}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dpeth=3", "`GPT` has no parameter `dpeth`"),
        ("depth=three", "`depth` of `GPT` cannot be three"),
        ("depth=1.5", "`depth` of `GPT` cannot be 1.5"),
        ("depth", "--set depth"),
    ],
)
def test_a_wrong_setting_is_a_diagnostic(
    setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "gpt.arch", "--set", setting]) == 1
    assert message in capsys.readouterr().err


def test_fmt_formats_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.arch"
    path.write_text("model A( n=3 ) { # why\n input x:float[n]\noutput y:float[n]=x->relu }\n")
    assert main(["fmt", "--check", str(path)]) == 1
    assert "is not formatted" in capsys.readouterr().err
    assert main(["fmt", str(path)]) == 0
    assert path.read_text() == (
        "model A(n = 3) {\n  # why\n  input x: float[n]\n  output y: float[n] = x -> relu\n}\n"
    )
    assert main(["fmt", "--check", str(path)]) == 0
    before = path.read_text()
    path.write_text(before + "model (")
    assert main(["fmt", str(path)]) == 1
    assert path.read_text() == before + "model ("


def test_fmt_reads_standard_input() -> None:
    done = process("fmt", "-", input='use   "blocks.arch"')
    assert (done.stdout, done.returncode) == ('use "blocks.arch"\n', 0)


def test_show_emits_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    starts = {
        "ast": "File\n  Use",
        "typed": "graph GPT init normal",
        "passes": "# after eliminate_dead_code: unchanged\n",
        "weights": "embed.weight: [11, 8]\nposenc.weight: [7, 8]\n",
    }
    for stage, start in starts.items():
        assert main(["show", "gpt.arch", "--emit", stage, *TINY]) == 0
        assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize("spec", ["mistral.arch:mistral_7B", "t5.arch:small"])
def test_show_prints_the_cache_and_check_its_size(
    spec: str, capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    printed = []
    for command, word in (
        (["show", spec, "--emit", "passes"], "state"),
        (["check", spec], "cache"),
    ):
        assert main(command) == 0
        lines = map(str.strip, capsys.readouterr().out.splitlines())
        printed += [line for line in lines if line.startswith(f"{word} ")]
    golden(f"states/{spec.replace('.arch:', '_')}.txt", "\n".join([*printed, ""]))


def test_run_computes_a_forward_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "tokens.npy", np.array([[1, 2, 3]]))
    given, out = f"tokens={tmp_path / 'tokens.npy'}", tmp_path / "out.npz"
    args = ["run", "gpt.arch", *TINY, "--device", "CPU", "--input", given]
    assert main([*args, "--output", str(out)]) == 0
    assert capsys.readouterr().out.startswith("logits: [1, 3, 11] mean ")
    assert np.load(out)["logits"].shape == (1, 3, 11)
    assert main([*args, "--json"]) == 0
    logits = json.loads(capsys.readouterr().out)["logits"]
    assert (logits["shape"], logits["mean"]) == ([1, 3, 11], np.load(out)["logits"].mean())
    assert main(["run", "gpt.arch", *TINY, "--device", "CPU"]) == 1
    assert "the input `tokens` is missing" in capsys.readouterr().err
    assert main([*args[:-1], f"tokens={tmp_path / 'none.npy'}"]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_a_map_without_weights_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "gpt.arch", "--map", "nanoGPT"]) == 1
    assert "--map names the tensors of --weights" in capsys.readouterr().err


def test_translate_reports_other_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.txt").write_text("<s>\n</s>\na\n")
    vocab = ["--vocab", str(tmp_path / "v.txt"), "--device", "CPU"]
    assert main(["translate", "gpt.arch", "a", *vocab]) == 1
    assert (
        "`GPT` is not a sequence-to-sequence model: it has 0 inputs in addition to `tokens`"
        in capsys.readouterr().err
    )
    assert main(["translate", "vit.arch", "a", *vocab]) == 1
    assert "its loss is not `next_token`" in capsys.readouterr().err


TINY_PAIRS = {"vocab": 5, "context": 9, "D": 8, "heads": 2, "depth": 1}


def test_translate_with_random_weights_prints_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.txt").write_text("<pad>\n<s>\n</s>\na\nb\n")
    sizes = (f"{name}={size}" for name, size in TINY_PAIRS.items())
    settings = [part for size in sizes for part in ("--set", size)]
    vocab = ["--vocab", str(tmp_path / "v.txt"), "--device", "CPU"]
    args = ["transformer.arch", *settings, *vocab]
    assert main(["translate", *args, "abba", "ab", "--beams", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "no --weights" in err
    sources = [json.loads(line) for line in out.splitlines()]
    assert [s["source"] for s in sources] == ["abba", "ab"]
    scores = [h["score"] for h in sources[0]["hypotheses"]]
    assert scores == sorted(scores, reverse=True)
    assert main(["translate", *args, "abxba"]) == 1
    assert "error[tokenizer]" in capsys.readouterr().err
    assert main(["translate", *args, "abbaabbaabba"]) == 1
    assert "the source is too long" in capsys.readouterr().err


@pytest.mark.long
def test_translate_takes_a_training_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It translates as the run's spec with its weights and its vocabulary does."""
    (run := tmp_path / "run").mkdir()
    spec = (Path(__file__).parents[2] / "specs" / "transformer.arch").read_text()
    for name, size in TINY_PAIRS.items():
        spec = re.sub(rf"\b{name} = \d+", f"{name} = {size}", spec, count=1)
    (run / "spec.arch").write_text(spec)
    (run / "settings.toml").write_text("")
    (run / "environment.json").write_text('{"dtype": "float32", "starts": []}')
    (run / "tokenizer.json").write_text(json.dumps(["<pad>", "<bos>", "<eos>", "a", "b"]))
    (run / "last").mkdir()
    archdsl.compile(str(run / "spec.arch"), device="CPU").save(run / "last/model.safetensors")
    weights = ["--weights", str(run / "last/model.safetensors")]
    vocab = ["--vocab", str(run / "tokenizer.json")]
    printed = []
    for args in ([str(run)], [str(run / "spec.arch"), *weights, *vocab]):
        assert main(["translate", *args, "abba", "--beams", "2", "--device", "CPU"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""
    (run / "tokenizer.json").unlink()
    assert main(["translate", str(run), "abba"]) == 1
    assert "has no tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["transformer.arch"], "is a spec, which has no vocabulary"),
        (["transformer.arch", "--tokenizer", "t"], "--tokenizer works only with a checkpoint"),
        (["some/folder", "--vocab", "v.txt"], "--vocab works only with a spec"),
        (["some/folder", "--eos", "</s>"], "--eos works only with a spec"),
    ],
)
def test_translate_options_for_specs_and_checkpoints(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", *args, "a text"]) == 1
    assert message in capsys.readouterr().err


def test_archdsl_alone_lists_the_commands_by_purpose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    listed = capsys.readouterr().err
    assert re.findall(r"^(\S.*):$", listed, re.M)[1:] == list(GROUPS)
    assert tuple(re.findall(r"^  (\w+)  ", listed, re.M)) == COMMANDS
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert (stop.value.code, capsys.readouterr().out) == (0, listed)
    with pytest.raises(SystemExit):
        main(["chekc"])
    assert "there is no command `chekc`; did you mean `check`?" in capsys.readouterr().err


def test_wrong_usage_is_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    for args in ([], ["chekc", "gpt.arch"], ["check"], ["show", "gpt.arch", "--emit", "asm"]):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_checking_never_imports_tinygrad() -> None:
    code = (
        "import sys, archdsl, archdsl.cli\n"
        "assert archdsl.cli.main(['check', 'gpt.arch']) == 0\n"
        "assert archdsl.check('gpt.arch') == []\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('tinygrad', 'numpy')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m archdsl show gpt.arch --emit ast | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.stdout, done.stderr) == ("File\n", "")


def test_tuning_takes_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "gpt.arch", "--tune", "0"])
    assert ended.value.code == 2
    assert (
        "--tune: expected seconds above 0, as in --tune 60; found `0`"
        in capsys.readouterr().err
    )


@pytest.mark.long
def test_tuning_without_enough_time_prints_a_note(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(5)[None])
    given = ("run", "gpt.arch", *TINY, "--input", f"tokens={tmp_path / 'tokens.npy'}")
    cache = os.environ | {"CACHEDB": str(tmp_path / "kernels.db")}
    options = ("--device", "CPU", "--kernels", "tinygrad")
    plain = process(*given, *options, env=cache)
    tuned = process(*given, *options, "--tune", "0.01", env=cache)
    assert (plain.stderr, plain.returncode, tuned.returncode) == ("", 0, 0)
    assert tuned.stdout == plain.stdout
    assert re.fullmatch(
        r"tuning for CPU: \d+ kernels are not tuned: the limit of 0.01 s is reached; the "
        r"next run continues\n",
        tuned.stderr,
    )
