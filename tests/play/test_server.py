"""The server of the playground: what it refuses, and the limits of its processes."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from archdsl.play.given import Given
from archdsl.play.jobs import Worker
from archdsl.play.server import LOOPBACK, MOST_BYTES, Server
from archdsl.play.site import ASSETS
from archdsl.semantics.library import standard_library

GPT = (standard_library() / "gpt.arch").read_text()
TINY = {"vocab": 32, "context": 64, "D": 16, "heads": 2, "depth": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(Given(text=GPT, title="gpt.arch"), 0, 60.0, 10**9)
    with made.serving():
        yield made


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task answers with its name and its data."""

    def answers(
        self: Worker, task: str, data: object, client: socket.socket
    ) -> Iterator[bytes]:
        yield json.dumps({"task": task, "data": data}).encode() + b"\n"

    monkeypatch.setattr(Worker, "answers", answers)


def ask(
    server: Server,
    path: str = "/api/run",
    body: bytes | None = b'{"text": ""}',
    **headers: str | None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """The status, the headers and the body of an answer; a header that is None is left out."""
    given = {
        "Host": server.hosts[0],
        "Origin": f"http://{server.hosts[0]}",
        "Authorization": f"Bearer {server.token}",
        "Content-Type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=20)
    connection.putrequest("POST" if body is not None else "GET", path, skip_host=True)
    if body is not None:
        given.setdefault("Content-Length", str(len(body)))
    for name, value in given.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    found = connection.getresponse()
    return found.status, found.headers, found.read()


@pytest.mark.usefixtures("echo")
def test_the_page_is_answered(server: Server) -> None:
    status, headers, body = ask(server)
    assert (status, json.loads(body)) == (200, {"task": "run", "data": {"text": ""}})
    assert headers["Content-Type"] == "application/x-ndjson"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    name = server.hosts[1]
    assert ask(server, Host=name, Origin=f"http://{name}")[0] == 200
    assert server.token in server.url


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"Host": "evil.example"}),
        (403, {"Host": "evil.example:{port}"}),
        (403, {"Host": "127.0.0.1"}),
        (403, {"Host": "127.0.0.1:{other}"}),
        (403, {"Host": None}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "http://localhost:{port}"}),
        (403, {"Origin": "https://127.0.0.1:{port}"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": None}),
        (401, {"Authorization": None}),
        (401, {"Authorization": "Bearer wrong"}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
        (415, {"Content-Type": None}),
        (411, {"Content-Length": None}),
        (411, {"Content-Length": "-1"}),
        (411, {"Transfer-Encoding": "chunked"}),
        (413, {"Content-Length": str(MOST_BYTES + 1)}),
        (413, {"Content-Length": "9" * 5000}),
    ],
)
@pytest.mark.usefixtures("echo")
def test_a_request_of_others_is_refused(
    server: Server, status: int, headers: dict[str, str | None]
) -> None:
    port = server.server_port
    filled = {
        name: value and value.format(port=port, other=port - 1)
        for name, value in headers.items()
    }
    found, _, body = ask(server, body=b"", **filled)
    assert found == status
    assert b"task" not in body
    if status != 415 and status != 411 and status != 413 and "Origin" not in headers:
        # What the page is given is refused, too.
        assert ask(server, "/api/given", None, **filled)[0] == status


@pytest.mark.usefixtures("echo")
def test_a_body_that_is_no_json_is_refused(server: Server) -> None:
    for body in (b"", b"{", b"[" * 100_000, b"\xff"):
        assert ask(server, body=body)[0] == 400


def test_only_the_files_of_the_page_are_served(server: Server) -> None:
    status, headers, body = ask(server, "/server.js?x=1", None, Authorization=None)
    assert (status, body) == (200, (ASSETS / "server.js").read_bytes())
    assert headers["Content-Type"].startswith("text/javascript")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    outside = [
        "/../server.py",
        "/%2e%2e/server.py",
        "//etc/passwd",
        "/assets/server.js",
        "/.",
        "/./server.js",
        "/server.js/",
        "/api/",
        "/api/answers",
        str(ASSETS / "server.js"),
        "/\x00",
    ]
    for path in outside:
        connection = socket.create_connection((LOOPBACK, server.server_port), 20)
        request = f"GET {path} HTTP/1.0\r\nHost: {server.hosts[0]}\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.makefile().readline().split()[1] == "404", path
        connection.close()
    assert ask(server, "/api/close")[0] == 404
    assert ask(server, "/server.js")[0] == 404  # POST


def test_other_methods_are_refused(server: Server) -> None:
    for method in ("OPTIONS", "PUT", "DELETE"):
        connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=20)
        connection.request(method, "/api/run", headers={"Origin": "http://evil.example"})
        found = connection.getresponse()
        assert found.status == 501
        assert not [name for name in found.headers if name.lower().startswith("access-")]


def test_the_page_gets_what_the_command_line_names(server: Server) -> None:
    status, _, body = ask(server, "/api/given", None, Origin=None)
    expected = {"text": GPT, "model": None, "title": "gpt.arch", "token": server.token}
    assert (status, json.loads(body)) == (200, expected)


@pytest.mark.usefixtures("echo")
def test_the_address_of_the_browser_works_once(server: Server) -> None:
    code = f"Bearer {server.url_once.partition('=')[2]}"
    assert ask(server, Authorization=code)[0] == 401  # it only opens the page
    status, _, body = ask(server, "/api/given", None, Authorization=code)
    assert (status, json.loads(body)["token"]) == (200, server.token)
    assert ask(server, "/api/given", None, Authorization=code)[0] == 401
    assert ask(server, "/api/given", None, Authorization="Bearer None")[0] == 401


def test_the_server_is_on_loopback_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="in use"):
        Server(Given(), server.server_port, 1.0, 1)


# -- processes --

FAKE = """
import json, signal, sys, time
paths, options = sys.stdin.readline(), json.loads(sys.stdin.readline())
for line in sys.stdin:
    request = json.loads(line)
    for number in range(request["data"]["count"]):
        print(json.dumps({"number": number}), flush=True)
        time.sleep(request["data"].get("pause", 0))
    if request["data"].get("exits"):
        sys.exit(3)
    print("{}", flush=True)
"""


class Client:
    """A connection, and what a worker answers to it."""

    def __init__(self, worker: Worker):
        self.worker = worker
        self.ours, self.theirs = socket.socketpair()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.theirs.close()

    def answers(self, **data: Any) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.worker.answers("run", data, self.theirs))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    """Workers whose process answers with numbers."""
    monkeypatch.setattr("archdsl.play.jobs._CODE", FAKE)
    made: list[Worker] = []
    yield made
    for each in made:
        each.close()


def worker(made: list[Worker], seconds: float = 20.0, grace: float = 0.0) -> Worker:
    made.append(Worker(Given(), seconds, 10**9, grace))
    return made[-1]


def process(of: Worker) -> Any:
    return of._process


def test_a_process_answers_several_requests(fake: list[Worker]) -> None:
    with Client(worker(fake)) as client:
        assert list(client.answers(count=2)) == [{"number": 0}, {"number": 1}]
        first = process(client.worker)
        assert list(client.answers(count=1)) == [{"number": 0}]
        assert process(client.worker) is first


def test_a_process_ends_at_its_time(fake: list[Worker]) -> None:
    with Client(worker(fake, seconds=0.3)) as client:
        first, last = client.answers(count=2, pause=60)
        running = process(client.worker)
        assert first == {"number": 0}
        assert "the answer took longer than 0.3 s" in last["refused"][0]
        assert running is None


def test_a_process_ends_when_its_client_leaves(fake: list[Worker]) -> None:
    with Client(worker(fake)) as client:
        answers = client.answers(count=2, pause=60)
        next(answers)
        running = process(client.worker)
        client.ours.close()
        start = time.monotonic()
        assert list(answers) == []
        assert time.monotonic() - start < 5
        assert running.poll() == -9


def test_a_process_may_finish_what_nobody_waits_for(fake: list[Worker]) -> None:
    of = worker(fake, grace=20.0)
    with Client(of) as client:
        answers = client.answers(count=2, pause=0.1)
        next(answers)
        first = process(of)
        client.ours.close()
        assert list(answers) == []
    with Client(of) as client:
        assert list(client.answers(count=1)) == [{"number": 0}]
    assert process(of) is first


def test_the_end_of_a_process_is_told(fake: list[Worker]) -> None:
    with Client(worker(fake)) as client:
        (answer,) = client.answers(count=0, exits=True)
        assert "= found: its exit status 3" in answer["refused"][0]
        assert list(client.answers(count=1)) == [{"number": 0}]  # by a new process


def test_one_request_runs_at_a_time(
    fake: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archdsl.play.jobs._PATIENCE", 0.01)
    of = worker(fake)
    with Client(of) as one, Client(of) as other:
        running = one.answers(count=2)
        next(running)
        (answer,) = other.answers(count=1)
        assert "another run is not finished" in answer["refused"][0]
        assert list(running) == [{"number": 1}]
        assert list(other.answers(count=1)) == [{"number": 0}]


def test_closing_ends_a_running_process(fake: list[Worker]) -> None:
    of = worker(fake)
    with Client(of) as client:
        answers = client.answers(count=2, pause=60)
        next(answers)
        threading.Timer(0.1, of.close).start()
        assert list(answers) == []


@pytest.mark.long
def test_a_process_cannot_take_more_memory() -> None:
    code = (
        "from archdsl.play.worker import _limit_memory; _limit_memory(1 << 30)\n"
        "try: bytearray(1 << 31)\n"
        "except MemoryError: print('refused')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "refused\n"
