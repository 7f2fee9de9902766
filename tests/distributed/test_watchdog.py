"""With real processes: what is watched is a main thread that does not return."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from tests.distributed.ranks import start_two

from virtex.distributed.watchdog import STUCK, Beat, Watchdog

# Two processes: rank 1 fails or does not reach the sum, or both reach it, as the argument says.
TWO = """
import sys, time
from pathlib import Path
import torch
from virtex.distributed.environment import read_environment
from virtex.distributed.world import Timeouts, connect

limit, directory, how = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with connect(read_environment(), gpus=False, timeouts=Timeouts(60, limit)) as (world, watchdog):
    watchdog.log = directory / f"log_rank{world.rank}.txt"
    world.wait()
    time.sleep(3 * watchdog.interval)  # until both have reported
    print("met", flush=True)
    watchdog.report("reading a picture without end")
    while how == "one sleeps" and world.rank == 1:
        time.sleep(0.01)
    while how == "both wait" and not (directory / "go").exists():
        watchdog.report("waiting")
        time.sleep(0.01)
    if how == "one fails" and world.rank == 1:
        raise ValueError("no such kernel")
    while how == "one fails":
        time.sleep(0.01)
    watchdog.report("the sum of the gradients")
    world.sum(torch.ones(1))
"""

ALONE = """
import os, sys, time
from pathlib import Path
from virtex.distributed.watchdog import Watchdog

watchdog = Watchdog(0, 1, None, float(sys.argv[1]))
watchdog.log = Path(sys.argv[2])
watchdog.report("a call that does not return")
time.sleep(60)
"""

# The parent ends; its child, without an agent, is asked to stop.
ORPHAN = """
import os, signal, sys, time
from pathlib import Path
from virtex.distributed.watchdog import Watchdog, ask_to_stop
from virtex.distributed.signals import stop_requests

note = Path(sys.argv[1])
if os.fork() == 0:
    with stop_requests() as request:
        watchdog = Watchdog(0, 1, None, 2.0)
        watchdog.orphaned = ask_to_stop
        (note / "begun").touch()
        deadline = time.monotonic() + 30
        while not request and time.monotonic() < deadline:
            watchdog.report("a step")
            time.sleep(0.01)
        (note / "partial").write_text(str(request.signal))
        (note / "partial").rename(note / "ended")
        watchdog.stop()
    os._exit(0)
while not (note / "begun").exists():
    time.sleep(0.01)
assert not (note / "ended").exists()
"""


@pytest.fixture
def two():
    """A function that starts two processes, and returns when they have joined."""
    started = []

    def start(*words):
        started.extend(start_two(TWO, *words))
        for process in started:
            assert process.stdout.readline(), process.communicate()
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_stuck_process_ends_and_reports_the_phase_of_each(two, tmp_path):
    processes = two(1, tmp_path, "one sleeps")
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert STUCK in [process.returncode for process in processes]
    # The first to end may cut the other's sum short.
    report = next(text for text in errors if "has been stuck" in text)
    assert re.search(
        r"rank [01] has been stuck for \d+ s \(limit 1 s, --watchdog-timeout\)", report
    )
    here = re.escape(socket.gethostname())
    assert re.search(rf"rank 0 on {here}: the sum of the gradients, for \d s", report)
    assert re.search(rf"rank 1 on {here}: reading a picture without end, for \d s", report)
    assert "nothing heard" not in report
    logs = [tmp_path / f"log_rank{rank}.txt" for rank in (0, 1)]
    text = next(log.read_text() for log in logs if log.exists())
    assert text.startswith("virtex: error: rank")
    assert "rank 1 on" in text
    assert 'File "<string>"' in text.split("rank 1 on")[1]


def test_a_process_that_cannot_end_by_itself_ends_after_the_failure_of_another(two, tmp_path):
    """As one that waits for the other by way of a GPU; this one sleeps."""
    first, second = two(16, tmp_path, "one fails")
    begin = time.monotonic()
    _, errors = second.communicate(timeout=30)
    failed = r"rank 1 on \S+ failed \(reading a picture without end\): ValueError: no such kernel"
    assert re.search(failed, errors)
    _, errors = first.communicate(timeout=30)
    assert time.monotonic() - begin < 15
    assert first.returncode == 1
    assert re.search(rf"^virtex: error: {failed}\nRank 0 ends too", errors, re.M)


def test_a_process_that_was_stopped_gives_no_sign_of_life(two, tmp_path):
    first, second = two(2, tmp_path, "both wait")
    second.send_signal(signal.SIGSTOP)
    (tmp_path / "go").touch()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == STUCK
    assert re.search(r"rank 0 on .*: the sum of the gradients, for \d s\n", errors)
    assert re.search(r"rank 1 on .*; nothing heard for \d s\n", errors)


def test_a_stopped_process_that_serves_the_store_does_not_hold_up_the_others(two, tmp_path):
    first, second = two(2, tmp_path, "both wait")
    first.send_signal(signal.SIGSTOP)
    (tmp_path / "go").touch()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == STUCK
    assert "rank 1 has been stuck" in errors
    assert "the sum of the gradients" in errors
    assert "does not answer" in errors


def alone(limit, log, seconds=30):
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(limit), log],
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def test_one_process_is_watched_too_and_its_log_gets_the_report_and_the_traceback(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("iteration 1\n")
    ended = alone(0.4, log)
    assert ended.returncode == STUCK
    assert "a call that does not return" in ended.stderr
    first, report, *traceback = log.read_text().splitlines()
    assert first == "iteration 1"
    assert report.startswith("virtex: error: rank 0 has been stuck")
    assert any(line.startswith('  File "<string>", line 9') for line in traceback)


def test_a_log_that_cannot_be_written_does_not_keep_it_alive(tmp_path):
    ended = alone(0.4, tmp_path / "gone" / "log.txt")
    assert ended.returncode == STUCK
    assert "rank 0 has been stuck" in ended.stderr


def test_a_log_on_a_disk_that_does_not_answer_does_not_keep_it_alive(tmp_path):
    """A pipe that nobody reads: opening it for writing does not return."""
    os.mkfifo(tmp_path / "log.txt")
    ended = alone(0.4, tmp_path / "log.txt")
    assert ended.returncode == STUCK
    assert "rank 0 has been stuck" in ended.stderr


def test_a_process_whose_phase_changes_lives(capfd):
    watchdog = Watchdog(0, 1, None, 1.0)
    for step in range(30):
        watchdog.report(f"step {step}")
        time.sleep(0.05)
    assert watchdog.phase == "step 29"
    watchdog.stop()
    assert capfd.readouterr().err == ""


def test_infinity_watches_nothing(capfd):
    watchdog = Watchdog(0, 1, None, math.inf)
    assert watchdog.interval == Watchdog(0, 1, None, 1e9).interval > 0
    time.sleep(watchdog.interval + 0.5)
    assert capfd.readouterr().err == ""
    start = time.monotonic()
    watchdog.stop()
    assert time.monotonic() - start < 0.8 * watchdog.interval  # does not wait for the next beat


@pytest.mark.parametrize(("parent", "missed"), [(-1, True), (os.getppid(), False)])
def test_only_a_parent_that_has_ended_is_missed(parent, missed):
    """Also one that ended before this process watched."""
    watchdog = Watchdog(0, 1, None, limit_seconds=0.8)
    noticed = threading.Event()
    watchdog.orphaned, watchdog.parent = noticed.set, parent
    try:
        assert noticed.wait(0.5) == missed
    finally:
        watchdog.stop()


def test_the_end_of_the_parent_is_a_request_to_stop(tmp_path):
    subprocess.run([sys.executable, "-c", ORPHAN, tmp_path], check=True, timeout=60)
    deadline = time.monotonic() + 30
    while not (tmp_path / "ended").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "ended").read_text() == str(signal.SIGTERM)


@pytest.mark.parametrize(
    ("silent", "added"), [(0, ""), (3.9, ""), (4.1, "; nothing heard for 4 s")]
)
def test_four_missing_beats_are_silence(silent, added):
    beat = Beat("a step", 2.6, 1000.0, "node-a")
    assert beat.line(3, 1000 + silent, 1.0) == f"rank 3 on node-a: a step, for 3 s{added}"
