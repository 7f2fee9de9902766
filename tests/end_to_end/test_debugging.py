"""The debugger on one of two processes, on a terminal, as a person sees it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from tests.end_to_end.conftest import KNOWN, logged

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SHORT = (*KNOWN, "OPTIM.NUM_ITERATIONS", "4")


class Terminal:
    """What a person types and sees; the processes' group owns the terminal."""

    def __init__(self, words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, *words], environment)
        self.seen = ""

    def wait_for(self, pattern, seconds=90):
        """What is shown up to a pattern; later calls see what follows."""
        deadline = time.monotonic() + seconds
        while (match := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in: {self.seen}"
            if not self._read():
                raise AssertionError(f"ended without {pattern!r}: {self.seen}")
        shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return shown

    def type(self, line):
        os.write(self.descriptor, f"{line}\n".encode())

    def end(self, seconds=60):
        """The exit status, and what is shown until then."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.seen
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.seen

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.descriptor)

    def _read(self):
        if select.select([self.descriptor], [], [], 0.5)[0]:
            try:
                text = os.read(self.descriptor, 65536)
            except OSError:  # Linux says so when nobody has the terminal open any more
                return False
            self.seen += text.decode(errors="replace").replace("\r\n", "\n")
            return bool(text)
        return True


@pytest.fixture
def terminal(scenes, run):
    opened = []

    def open_terminal(*flags, program, override=SHORT):
        words = scenes.arguments(run, *flags, override=override)
        opened.append(Terminal([*program, "-m", "virtex", "pretrain", *words]))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.mark.slow  # one process stays, and another's debugger in `tests/distributed`
@pytest.mark.parametrize("rank", [0, 1])
def test_the_debugger_opens_on_the_process_that_was_asked_for(terminal, run, rank):
    shown = terminal("--debug-rank", rank, program=TWO)
    shown.wait_for(r"\(Pdb\) ")
    shown.type("p 6 * 7")
    assert "\n42\n" in shown.wait_for(r"\(Pdb\) ")
    shown.type("p run.world.rank, run.world.size")
    assert f"({rank}, 2)" in shown.wait_for(r"\(Pdb\) ")
    shown.type("where")
    assert re.search(r"> .*\.py\(\d+\)_train\(\)", shown.wait_for(r"\n\(Pdb\) "))
    assert logged(run) == 0
    time.sleep(2)  # the others wait
    assert logged(run) == 0
    shown.type("c")
    status, rest = shown.end()
    assert status == 0, rest
    assert "(Pdb)" not in rest
    assert logged(run) == 4


def test_an_error_opens_the_debugger_where_it_happened(terminal, scenes):
    shown = terminal(*("--debug-rank", 0, "--init-from", scenes.config), program=(), override=SHORT)
    shown.wait_for(r"DamagedCheckpoint: .*run\.yaml")
    shown.wait_for(r"\(Pdb\) ")
    shown.type("p path.name")
    assert "'run.yaml'" in shown.wait_for(r"\(Pdb\) ")
    shown.type("q")
    status, rest = shown.end()
    assert status == 2
    assert "virtex pretrain: error: " in rest


def test_without_a_terminal_it_is_refused(scenes, run):
    ended = subprocess.run(
        [sys.executable, "-m", "virtex", "pretrain", *scenes.arguments(run, "--debug-rank", 0)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "--debug-rank needs a terminal" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not run.exists()


def test_a_rank_that_is_not_there_is_refused(scenes, run, capsys):
    assert scenes.pretrain(run, "--debug-rank", 1) == 2
    assert "--debug-rank 1 must be less than the number of processes, 1" in capsys.readouterr().err
