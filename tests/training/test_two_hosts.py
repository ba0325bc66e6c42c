"""Training on two hosts: network namespaces with a cable between them. Needs root."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.test_processes import WAIT, command, done, environment, same

pytestmark = [pytest.mark.reference("mpi4py"), pytest.mark.slow]
HOSTS = {"a": "10.77.0.1", "b": "10.77.0.2"}  # the addresses at both ends of the cable


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """The names of two namespaces."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("mpirun"):
        pytest.skip("needs root, ip and mpirun")
    names = {each: f"archdsl-{os.getpid()}-{each}" for each in HOSTS}
    try:
        for name in names.values():
            ip("netns", "add", name)
        a, b = names.values()
        ip("link", "add", "cable", "netns", a, "type", "veth", "peer", "cable", "netns", b)
        for each, name in names.items():
            ip("-n", name, "address", "add", f"{HOSTS[each]}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def on(name: str, words: str) -> list[str]:
    """A command on a host, which knows itself by its name."""
    named = f"hostname {name}; {words}"
    return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", named]


def sent(name: str) -> int:
    """Bytes that a host has sent over the cable."""
    (found,) = json.loads(ip("-n", name, "-s", "-j", "link", "show", "cable"))
    return int(found["stats64"]["tx"]["bytes"])


def test_the_losses_are_those_of_one_process(tmp_path: Path, hosts: dict[str, str]) -> None:
    done(command(tmp_path / "one", 20))
    # mpirun starts the other host by `ssh HOST COMMAND`.
    ssh = tmp_path / "ssh"
    words = " ".join(map(shlex.quote, on(hosts["b"], "")[:-1]))
    ssh.write_text(f'#!/bin/sh\nshift\nexec {words} "hostname {hosts["b"]}; $*"\n')
    ssh.chmod(0o755)
    run = tmp_path / "two"
    mpirun = ["mpirun", "--allow-run-as-root", "--prtemca", "plm_ssh_agent", str(ssh)]
    mpirun += ["--host", f"{hosts['a']}:1,{HOSTS['b']}:1", "-n", "2", *command(run, 20)]
    found = subprocess.run(
        on(hosts["a"], shlex.join(mpirun)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    same(tmp_path / "one", run)
    weights = (run / "last" / "model.safetensors").stat().st_size
    for name in hosts.values():
        assert sent(name) > 20 * weights * 0.9  # the gradients of 20 steps
