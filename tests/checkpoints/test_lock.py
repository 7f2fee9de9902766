"""With real processes: a lock of this kind does not bind the process that holds it."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from virtex.checkpoints.lock import LOCK, locked
from virtex.errors import UserError

HOLD = """
import os, sys, time
from pathlib import Path
from virtex.checkpoints.lock import locked

with locked(Path(sys.argv[1])) as warning:
    assert warning is None
    child = os.fork() if "fork" in sys.argv else 1
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """A function that starts a process which holds the lock until its standard input ends."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        process.child = int(process.stdout.readline())
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_error_of_a_second_process_names_the_holder_of_the_lock(tmp_path, hold):
    holder = hold()
    pattern = rf"{re.escape(str(tmp_path))}: process {holder.pid} on {socket.gethostname()}, since"
    for _ in range(2):
        with pytest.raises(UserError, match=pattern), locked(tmp_path):
            pass
    holder.communicate()
    assert holder.returncode == 0
    with locked(tmp_path) as warning:
        assert warning is None
        assert f"process {os.getpid()} on" in (tmp_path / LOCK).read_text(encoding="utf-8")


def test_kill_9_ends_the_lock_at_once(hold):
    holder = hold()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    # As processes that an agent restarts do.
    assert hold().poll() is None


def test_a_child_that_outlives_the_holder_does_not_hold_the_lock(tmp_path, hold):
    """A worker of the loader may need a while to notice that it is alone."""
    holder = hold("fork")
    try:
        holder.kill()
        holder.wait()
        os.kill(holder.child, 0)  # it is there
        with locked(tmp_path) as warning:
            assert warning is None
    finally:
        os.kill(holder.child, signal.SIGKILL)


def test_other_directories_are_free(tmp_path, hold):
    hold()
    with locked(tmp_path / "a" / "b") as warning:
        assert warning is None


def test_the_line_of_an_older_holder_is_gone(tmp_path):
    (tmp_path / LOCK).write_text("process 1 on a machine with a very long name\n" * 3)
    with locked(tmp_path):
        assert len((tmp_path / LOCK).read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_to_is_an_error_for_the_user(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match=f"could not create or lock .*{tmp_path.name}"):
            locked(tmp_path).__enter__()
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_directory_s_place_is_an_error_for_the_user(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="could not create or lock"):
        locked(tmp_path / "run" / "deeper").__enter__()
