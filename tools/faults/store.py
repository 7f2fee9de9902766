"""An HTTP server of a local directory that fails on purpose."""

import http.server
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves `directory`; `share` of the requests fail, and all of them while `out` is true.

    How a request fails is drawn from `rng`: status 500, a reset connection, truncated content, or
    a late answer.
    """

    daemon_threads = True

    def __init__(self, directory: Path, rng: random.Random, share: float) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.directory = directory
        self.share = share
        self.out = False
        self.failed: dict[str, int] = {}
        self._rng = rng
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self) -> str | None:
        """How the next request fails, or None if it succeeds."""
        with self._lock:
            if not self.out and self._rng.random() >= self.share:
                return None
            kind = self._rng.choice(("status 500", "reset", "cut", "late"))
            self.failed[kind] = self.failed.get(kind, 0) + 1
            return kind

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors: a client that was killed is not an error of the server."""


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.server.directory / self.path.lstrip("/")
        kind = self.server.draw()
        if kind == "status 500":
            self.send_error(500)
            return
        if kind == "reset":
            # Closing with unsent data resets the connection.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        if kind == "late":
            time.sleep(2)
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if kind == "cut" else content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(directory: Path, rng: random.Random, share: float) -> Iterator[Server]:
    """Run a server of `directory` during the context."""
    server = Server(directory, rng, share)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
