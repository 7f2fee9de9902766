"""A process whose agent has ended notices, also where that was before it watched."""

import os
import subprocess
import sys
import threading

import pytest

from virtex.distributed.signals import StopRequest
from virtex.distributed.watchdog import Watchdog

SPAWNED = """
import multiprocessing, os
from virtex.distributed.signals import StopRequest

def tell(connection):
    connection.send(StopRequest().parent)

if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=tell, args=(theirs,))
    process.start()
    print(ours.recv() == os.getpid())
    process.join()
"""


@pytest.mark.parametrize(("parent", "missed"), [(-1, True), (StopRequest().parent, False)])
def test_only_a_parent_that_has_ended_is_missed(parent, missed):
    watchdog = Watchdog(0, 1, None, limit_seconds=0.8)
    noticed = threading.Event()
    watchdog.orphaned, watchdog.parent = noticed.set, parent
    try:
        assert noticed.wait(0.5) == missed
    finally:
        watchdog.stop()


def test_a_spawned_process_knows_its_parent(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "True", ended.stderr
