"""Signals as a terminal gives them, and programs that start within milliseconds."""

import signal
import subprocess
from contextlib import closing

import pytest
from tests import fork_server

# A shell's background job ignores interrupts and one under nohup hang-ups; so would every process
# that a test starts.
for number, handler in {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
}.items():
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def programs():
    """Python programs are forked from a process that has torch, where the system allows it."""
    if fork_server.CLONE is None:
        yield
        return
    with closing(fork_server.Server.start()) as server:
        server.install()
        yield


@pytest.fixture(autouse=True)
def _cold_start(request, monkeypatch):
    """A test that is marked `cold` starts a new interpreter, as a user does."""
    if request.node.get_closest_marker("cold"):
        start = fork_server.start_anew
        monkeypatch.setattr(subprocess.Popen, "_execute_child", start)
