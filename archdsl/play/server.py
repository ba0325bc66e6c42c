"""The server of `archdsl play`: the page on loopback, and the processes that answer it.

It is the standard library's server: a few routes and a stream need no framework. The page of
another origin cannot use it: a request must name the loopback address and our port as its host
(else a foreign name could be bound to this address), and one to `/api/` must have the origin of
our page, and a random token that only the printed address has. Our page loads nothing from
elsewhere.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Lock, Thread
from typing import Any

import archdsl
from archdsl.diagnostics import Diagnostic
from archdsl.play.given import Given
from archdsl.play.jobs import Worker
from archdsl.play.protocol import line, refused
from archdsl.play.site import site_files

LOOPBACK = "127.0.0.1"
MOST_BYTES = 1 << 25  # of a request: a text, or an image in base64

_FINISHING = 2.0  # seconds; a page asks again at each key, and starting anew takes longer
_READING = 20.0  # seconds in which a client must send its request
_LINES = "application/x-ndjson"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".arch": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """Serves the page for what the command line names. `port` 0 chooses a free one.

    A run may take `seconds`, and its model `memory` bytes. Raises `OSError` if the port is
    used.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, given: Given, port: int, seconds: float, memory: int):
        super().__init__((LOOPBACK, port), _Handler)
        self.given = given
        self.token = secrets.token_urlsafe(24)
        self._code: str | None = secrets.token_urlsafe(24)
        self._lock = Lock()
        self.hosts = [f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")]
        inspecting = Worker(given, seconds, memory, grace=_FINISHING)
        running = Worker(given, seconds, memory)
        self.workers: Mapping[str, Worker] = {
            "inspect": inspecting,
            "inputs": inspecting,
            "run": running,
            "generate": running,
            "classify": running,
        }
        self.files = {f"/{name}": content for name, content in site_files("server").items()}

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        return f"http://{self.hosts[0]}/?token={self.token}"

    @property
    def url_once(self) -> str:
        """An address that works once. Other users of the machine can see the command that
        opens a browser, and so its address."""
        return f"http://{self.hosts[0]}/?token={self._code}"

    def accepts(self, caller: str, opening: bool) -> bool:
        """Whether a caller has the token, or is the first one with the code of `url_once`."""
        if _same(caller, self.token):
            return True
        with self._lock:
            if not opening or self._code is None or not _same(caller, self._code):
                return False
            self._code = None
            return True

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answers requests within the block; then ends all processes."""
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()
            for worker in set(self.workers.values()):
                worker.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has closed its connection is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


class _Refused(Exception):
    """The status of a request that is refused, and why."""

    def __init__(self, status: HTTPStatus, why: str):
        self.status, self.why = status, why


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _READING
    server_version, sys_version = f"archdsl/{archdsl.__version__}", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        with self._refusing():
            self._check_host()
            if path == "/api/given":
                self._check_caller(self.headers.get("Origin"), opening=True)
                given = self.server.given
                data = {"text": given.text, "model": given.model, "title": given.title}
                data["token"] = self.server.token
                self._send("application/json", json.dumps(data).encode())
                return
            found = self.server.files.get("/index.html" if path == "/" else path)
            if found is None:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
            kind = _TYPES.get(PurePosixPath(path).suffix or ".html", "application/octet-stream")
            self._send(kind, found)

    def do_POST(self) -> None:
        with self._refusing():
            self._check_host()
            worker = self.server.workers.get(self.path.removeprefix("/api/"))
            if worker is None or not self.path.startswith("/api/"):
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such task")
            self._check_caller(self.headers.get("Origin", "none"))
            data = self._body()
            self._send(_LINES)
            answers = worker.answers(self.path.removeprefix("/api/"), data, self.connection)
            # The client may close its connection, and so end the run.
            with suppress(OSError), closing(answers):
                for each in answers:
                    self.wfile.write(each)

    def _check_host(self) -> None:
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            raise _Refused(HTTPStatus.FORBIDDEN, "the host is not this server")

    def _check_caller(self, origin: str | None, opening: bool = False) -> None:
        if origin not in (None, f"http://{self.headers['Host']}"):
            raise _Refused(HTTPStatus.FORBIDDEN, "the origin is not the page of this server")
        caller = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.server.accepts(caller, opening):
            why = "the token is missing or wrong: open the URL that `archdsl play` printed"
            raise _Refused(HTTPStatus.UNAUTHORIZED, why)

    def _body(self) -> object:
        """The JSON data of a request."""
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is not given")
        if len(length) > 12 or int(length) > MOST_BYTES:
            why = f"the body has more than {MOST_BYTES:,} bytes"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except _Refused as error:
            answer = refused(Diagnostic("input", error.why))
            self._send(_LINES, line(answer), error.status)

    def _send(
        self, kind: str, content: bytes | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        """Sends the headers, and the content if it is known; else lines follow, up to the end
        of the connection."""
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content is not None:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: the terminal is for the user."""
