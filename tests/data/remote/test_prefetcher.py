import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tests.data.faulty_server import serve
from tests.data.packing import opened, packed

from virtex.data.remote.directory import Retries
from virtex.data.remote.prefetcher import Prefetcher
from virtex.data.remote.shards import remote_splits
from virtex.data.remote.store import RemoteStore
from virtex.data.sources.coco import CocoCaptions
from virtex.distributed.signals import Stopped
from virtex.errors import RunError

QUICK = Retries(attempts=3, first_pause=0.01, longest_pause=0.02)


@pytest.fixture
def server(write_coco, tmp_path, monkeypatch):
    """Serves four shards at /d."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = CocoCaptions(write_coco({i: [f"{i}"] for i in range(11)}), "train")
    with serve() as server:
        for path in packed(files, tmp_path / "packed").iterdir():
            server.files[f"/d/{path.name}"] = path.read_bytes()
        yield server


class Watched:
    """A prefetcher, what it logged and which phases it reported."""

    def __init__(self, server, tmp_path, check=lambda _: None):
        cache = {"cache_dir": tmp_path / "cache", "cache_bytes": 10**9}
        store = RemoteStore(f"{server.url}/d", **cache, retries=QUICK)
        self.records = opened(tmp_path / "packed", store=store)
        self.store, self.logged, self.phases = store, [], []
        self.prefetcher = Prefetcher(
            remote_splits(self.records, self.records, self.records),
            logger=SimpleNamespace(info=self.logged.append),
            watchdog=SimpleNamespace(report=self.phases.append),
            stop_request=SimpleNamespace(check=check),
        )
        server.gets.clear()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.prefetcher.close()

    def read(self):
        for record in self.records:
            record.image.content()


def spawned():
    """The processes of this one that are not loader workers, which are forked."""
    return [child for child in multiprocessing.active_children() if "Spawn" in child.name]


def tars(server):
    return sorted(path for path in server.gets if path.endswith(".tar"))


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_needed_is_there_and_what_is_expected_comes(server, tmp_path):
    with Watched(server, tmp_path) as one:
        server.faults += [503, "reset", "truncate"]
        one.prefetcher.wait_for(np.array([0, 2]))
        assert set(tars(server)) == {"/d/00000.tar", "/d/00002.tar"}
        assert one.store.statistics.retries == 3
        one.prefetcher.prefetch(np.array([1, 3]))
        until(lambda: one.store.statistics.files == 1 + 8)  # the manifest is the first
        server.down = True
        one.read()
        one.prefetcher.wait_for(np.array([1, 3]))
        assert "fetching 2 shards, 0.0" in one.logged[0]
        assert "of the first window" in one.logged[0]
        assert "waited " in one.logged[1]
        assert len(one.logged) == 2
        assert one.phases
        assert len(spawned()) == 1
    assert not spawned()


def test_processes_of_a_machine_share_the_work(server, tmp_path):
    with Watched(server, tmp_path) as one, Watched(server, tmp_path) as other:
        one.prefetcher.prefetch(np.arange(4))
        other.prefetcher.wait_for(np.arange(4))
        one.prefetcher.wait_for(np.arange(4))
        assert tars(server) == [f"/d/0000{number}.tar" for number in range(4)]


def test_an_error_is_left_to_the_reader(server, tmp_path):
    with Watched(server, tmp_path) as one:
        server.down = True
        one.prefetcher.wait_for(np.arange(4))
        assert (
            "fetching ahead failed, so missing files are fetched when they are read"
            in one.logged[-1]
        )
        assert "gave up after 3 attempts" in one.logged[-1]
        with pytest.raises(RunError, match="gave up after 3 attempts"):
            one.read()
        server.down = False
        one.prefetcher.wait_for(np.arange(4))
        server.down = True
        one.read()


def test_a_process_that_was_killed_is_an_error_for_nobody(server, tmp_path):
    with Watched(server, tmp_path) as one:
        one.prefetcher.wait_for(np.array([0]))
        (process,) = spawned()
        process.kill()
        process.join()
        one.prefetcher.wait_for(np.array([1]))
        assert "the process that does it has ended" in one.logged[-1]
        one.read()


def test_the_first_wait_can_be_stopped(server, tmp_path):
    def stop(message):
        raise Stopped(message)

    expected = pytest.raises(Stopped, match="stopped by a signal while shards were fetched")
    with Watched(server, tmp_path, stop) as one, expected:
        one.prefetcher.wait_for(np.arange(4))
    assert not spawned()


PARENT = """
import os, sys
from pathlib import Path
import numpy as np
from tests.data.faulty_server import serve
from tests.data.remote.test_prefetcher import Watched
from tests.data.remote import test_prefetcher as test_prefetching

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    with serve() as server:
        for path in (directory / "packed").iterdir():
            server.files[f"/d/{path.name}"] = path.read_bytes()
        one = Watched(server, directory)
        one.prefetcher.wait_for(np.array([0]))
        print(one.prefetcher._process.pid, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_its_parent(server, tmp_path, number):  # noqa: ARG001
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, tmp_path / "parent.py", tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as parent:
        child = int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGINT) if number == signal.SIGINT else parent.kill()
        errors = parent.stderr.read().decode()
        assert errors.count("Traceback") == (number == signal.SIGINT)  # the parent's own
        until(lambda: not is_running(child))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
