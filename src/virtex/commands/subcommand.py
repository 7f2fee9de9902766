"""Running a sub-command of `virtex` as part of another one, in a process of its own."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence


def run_subcommand(words: Sequence[str]) -> int:
    """Print the command line `virtex WORDS`, run it and return its exit status.

    SIGINT and SIGTERM end the command first, then raise KeyboardInterrupt.
    """
    print(f"$ virtex {shlex.join(words)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", "virtex", *words]) as process:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal interrupts both processes; a signal sent to this one only is passed on.
            # SIGTERM, not SIGKILL, so that a run of several processes can end them.
            process.terminate()
            process.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
