"""Shells complete commands, options and files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from archdsl.cli import COMMANDS, full_parser, main
from archdsl.cli.completion import SHELLS

pytestmark = pytest.mark.reference("shtab")

BASH = """
source ./archdsl.bash
line="{line}"
COMP_WORDS=($line)
[[ $line != *" " ]] || COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
function=$(complete -p archdsl)
function=${{function#*-F }}
${{function%% *}} archdsl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("archdsl tr", {"train", "transcribe", "translate"}),
        ("archdsl check gpt", {"gpt.arch", "gpt2.arch"}),
        ("archdsl train --opt", {"--optimizer"}),
        ("archdsl completion ", {*SHELLS}),
        ("archdsl runs ", {"runs"}),  # folders only
    ],
)
def test_bash(
    line: str, expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("gpt.arch", "gpt2.arch", "vit.arch"):
        (tmp_path / name).touch()
    (tmp_path / "runs").mkdir()
    assert main(["completion", "bash"]) == 0
    (tmp_path / "archdsl.bash").write_text(capsys.readouterr().out)
    command = ["bash", "--norc", "-c", BASH.format(line=line)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    is_option = line.rpartition(" ")[2].startswith("-")
    found = {each for each in done.stdout.split() if each.startswith("-") == is_option}
    assert found == expected, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_command_and_option_is_in_the_script(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    train = next(
        action.choices["train"]
        for action in full_parser()._actions
        if isinstance(action.choices, dict)
    )
    options = [each for action in train._actions for each in action.option_strings]
    assert len(options) > 20
    assert all(option.lstrip("-") in script for option in options)
