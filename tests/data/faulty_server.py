"""An HTTP server on this machine whose answers go wrong when a test says so."""

import http.client
import re
import socket
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer(ThreadingHTTPServer):
    """Serves `files` ({path: content}), or what another server, `upstream`, answers.

    Each GET takes the next of `faults`: a status, or "reset", "truncate", "short", "wrong",
    "stall", "slow", or None for a good answer. `down` makes every request fail, and those for
    paths in `gone`. `gets` lists the paths that were asked for.
    """

    daemon_threads = True

    def __init__(self, upstream=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.faults, self.gets = {}, deque(), []
        self.upstream, self.down, self.gone, self.has_ranges = upstream, False, set(), True
        self.stalled, self.release = threading.Event(), threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):  # clients that went away are what is tested
        pass


@contextmanager
def serve(upstream=None):
    server = FaultyServer(upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_PUT(self):
        self._answer()

    def _answer(self):
        fault = None
        if self.command == "GET":
            self.server.gets.append(self.path)
            fault = self.server.faults.popleft() if self.server.faults else None
        status, headers, body = self._upstream() if self.server.upstream else self._file()
        if self.server.down or self.path in self.server.gone:
            fault = 503
        if fault == "slow":
            time.sleep(0.3)
        if isinstance(fault, int):
            status, headers, body = fault, {}, b""
        self._send(status, headers, body, fault)

    def _file(self):
        body = self.server.files.get(self.path)
        if body is None:
            return 404, {}, b""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not self.server.has_ranges:
            return 200, {}, body
        return 206, {}, body[int(asked[1]) : int(asked[2]) + 1]

    def _upstream(self):
        connection = http.client.HTTPConnection(*self.server.upstream)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        skipped = ("content-length", "transfer-encoding", "connection")
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in skipped}
        length = answer.getheader("Content-Length")
        body = answer.read()
        connection.close()
        return answer.status, headers, body if self.command != "HEAD" else int(length or 0)

    def _send(self, status, headers, body, fault):
        if self.command == "HEAD":
            length, body = (len(body) if isinstance(body, bytes) else body), b""
        else:
            if fault == "short":
                body = body[: len(body) // 2]
            if fault == "wrong":
                body = bytes(byte ^ 1 for byte in body)
            length = len(body)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault not in ("reset", "truncate", "stall"):
            self.wfile.write(body)
            return
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True
        if fault == "stall":
            self.server.stalled.set()
            self.server.release.wait(60)
        if fault == "reset":  # no lingering: the other side gets a reset, not an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
