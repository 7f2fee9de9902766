"""A program that is forked finds what it would find if Python had been started for it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests import fork_server

pytestmark = pytest.mark.skipif(fork_server.CLONE is None, reason="programs are not forked here")

TELLS = """
import json, os, signal, sys, threading

def is_given(descriptor):  # and not the socket of the server of what is started from here
    path = f"/proc/self/fd/{descriptor}"
    return os.path.exists(path) and not os.readlink(path).startswith("socket:")

shown = [open(f"/proc/self/{name}", "rb").read() for name in ("cmdline", "environ")]
line, environment = [[word for word in text.decode().split("\\0") if word] for text in shown]
print(json.dumps({
    "parent": os.getppid(),
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "group": None if os.getpgid(0) == os.getpid() else os.getpgid(0),
    "directory": os.getcwd(),
    "words": [sys.argv, line, __name__],
    "environment": [sorted(os.environ.items()), sorted(environment)],
    "path": sys.path,
    "signals": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "descriptors": sorted(name for name in os.listdir("/proc/self/fd") if is_given(name)),
    "threads": threading.active_count(),
    "input": sys.stdin.read(),
}, indent=1))
print("told", file=sys.stderr)
raise SystemExit(7)
"""


def start_with(monkeypatch, execute, words, **options):
    monkeypatch.setattr(subprocess.Popen, "_execute_child", execute)
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)


@pytest.mark.parametrize("form", ["-c", "-m", "script"])
@pytest.mark.parametrize("session", [True, False])
def test_a_forked_program_finds_what_a_started_one_finds(tmp_path, monkeypatch, form, session):
    (tmp_path / "tells.py").write_text(TELLS, encoding="utf-8")
    named = {"-c": ["-c", TELLS], "-m": ["-m", "tells"], "script": [tmp_path / "tells.py"]}
    options = {
        "cwd": tmp_path,
        "env": {
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "LC_ALL": "C.UTF-8",
            "TOLD": "ä",
        }
        | {name: os.environ[name] for name in os.environ if name.startswith("PYTHON")},
        "start_new_session": session,
        "input": "given",
    }
    forks = subprocess.Popen._execute_child
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        started, forked = (
            start_with(monkeypatch, execute, [*named[form], "a", "b c"], **options)
            for execute in (fork_server.start_anew, forks)
        )
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert json.loads(started.stdout) == json.loads(forked.stdout)
    assert (
        (started.stderr, started.returncode) == (forked.stderr, forked.returncode) == ("told\n", 7)
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("import sys; sys.exit('a message')", 1),
        ("raise ValueError", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os._exit(9)", 9),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import sys; 'torch' in sys.modules or sys.exit(5)", 0),
    ],
)
def test_the_end_of_a_forked_program_is_its_own(code, status):
    assert (
        subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == status
    )


def test_what_a_forked_program_starts_is_forked_from_it():
    tells = "import os, sys; print(os.getppid(), 'torch' in sys.modules)"
    code = (
        "import os, subprocess, sys; print(os.getpid(), True, flush=True);"
        f"subprocess.run([sys.executable, '-c', {tells!r}])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    own, others = told.stdout.splitlines()
    assert own == others
