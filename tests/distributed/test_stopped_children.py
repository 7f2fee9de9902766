"""A child that a signal has stopped is ended; one that works or merely waits is not."""

import signal
import subprocess
import threading
from pathlib import Path

import pytest

from virtex.distributed.stopped_children import killing_stopped_children

CHILDREN = Path(f"/proc/self/task/{threading.get_native_id()}/children")
pytestmark = pytest.mark.skipif(not CHILDREN.exists(), reason="/proc does not list children")


def test_a_stopped_child_is_ended_and_named(capsys):
    with (
        killing_stopped_children(0.4),
        subprocess.Popen(["sleep", "30"]) as stopped,
        subprocess.Popen(["sleep", "1"]) as waiting,
    ):
        stopped.send_signal(signal.SIGSTOP)
        assert stopped.wait(timeout=10) == -signal.SIGKILL
        assert waiting.wait(timeout=10) == 0
    assert f"process {stopped.pid} has been stopped by a signal for" in capsys.readouterr().err


def test_a_child_that_is_continued_in_time_lives():
    with killing_stopped_children(2), subprocess.Popen(["sleep", "2.5"]) as process:
        for _ in range(2):
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=10) == 0
