"""Two processes of one job without an agent, and free ports for jobs."""

import os
import subprocess
import sys

from tools.faults.jobs import free_port


def free_url():
    return f"tcp://127.0.0.1:{free_port()}"


def start_two(program, *words):
    """Start a program as rank 0 and rank 1, with pipes for its output and errors."""
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            env={**os.environ, **job, "RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
