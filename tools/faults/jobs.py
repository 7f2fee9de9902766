"""A job of one to three processes under one of several launchers, watched from outside.

Convention: every process that a job starts has its mark in the environment, by which it is found
whatever its parent or process group has become. Linux only: it reads `/proc`.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ITERATIONS, EVERY = 20, 5
HUNG_SECONDS = 120
"""A job that has neither ended nor recovered after this time counts as hung."""
MARK = "VIRTEX_FAULTS_MARK"
CONFIG = """
AMP: false
DATA: {{FORMAT: shards, ROOT: "{data}", CACHE_DIR: {cache}, IMAGE_CROP_SIZE: 64,
  TOKENIZER_MODEL: {root}/vocabulary.model, VOCAB_SIZE: 110}}
MODEL:
  VISUAL: {{NAME: "torchvision::regnet_y_400mf", FEATURE_SIZE: 440}}
  TEXTUAL: {{NAME: "transdec_postnorm::L1_H32_A2_F64", DROPOUT: 0.1}}
  DECODER: {{BEAM_SIZE: 2, MAX_DECODING_STEPS: 8}}
OPTIM: {{BATCH_SIZE: 12, CNN_LR: 0.05, LR: 0.01, WARMUP_STEPS: 3, NUM_ITERATIONS: {iterations},
  LOOKAHEAD: {{USE: true, STEPS: 7}}}}
"""


@dataclass(frozen=True)
class Launcher:
    """How processes are started: by torchrun, or by `virtex pretrain` on each of `machines`."""

    name: str
    machines: int = 0
    restarts: int = 0
    own_store: bool = False
    processes: int = 2


LAUNCHERS = (
    Launcher("torchrun"),
    Launcher("torchrun, own store", own_store=True),
    Launcher("torchrun, 1 restart", restarts=1),
    Launcher("torchrun, own store, 1 restart", restarts=1, own_store=True),
    Launcher("2 machines", machines=2),
    Launcher("2 machines, 1 restart", machines=2, restarts=1),
)
"""The launchers of the first round."""
MORE_LAUNCHERS = (
    Launcher("torchrun, 3 processes", processes=3),
    Launcher("torchrun, 3 processes, 1 restart", processes=3, restarts=1),
    Launcher("1 machine, 1 restart", machines=1, restarts=1, processes=1),
    *(one for one in LAUNCHERS if not one.own_store),
)
"""The launchers of the second round."""


@dataclass(frozen=True)
class Process:
    """A living process; `words` is its command line."""

    pid: int
    parent: int
    words: str
    rank: int | None


@dataclass
class Job:
    """A run's directory, and the commands that start or resume it."""

    root: Path
    name: str
    launcher: Launcher
    data: str
    flags: tuple[str, ...] = ()
    loader_workers: int = 1
    program: str = "virtex"
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    agents: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    directory: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory = self.root / self.name / "run"
        self.directory.parent.mkdir(exist_ok=True)
        self.config = self.directory.parent / "run.yaml"
        self.console = self.directory.parent / "console"
        self.mark = f"{os.getpid()} {self.name} {time.time_ns()}"
        text = CONFIG.format(
            root=self.root,
            data=self.data,
            cache=self.directory.parent / "cache",
            iterations=ITERATIONS,
        )
        self.config.write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start the agents, each in a process group of its own."""
        launcher = self.launcher
        restarts = ["--max-restarts", launcher.restarts]
        if launcher.machines:
            machines = ["--num-machines", launcher.machines]
            machines += ["--dist-url", f"tcp://127.0.0.1:{free_port()}"]
            words = [self.program, *self._words(), *machines, *restarts, "--machine-rank"]
            ranks = range(launcher.machines)
            commands = [[*words, rank] for rank in ranks]
            environments = [self.environment] * launcher.machines
        else:
            torchrun = ["torch.distributed.run", "--standalone", *restarts]
            torchrun += ["--nproc-per-node", launcher.processes]
            store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if launcher.own_store else {}
            commands = [[*torchrun, "-m", self.program, *self._words()]]
            environments = [self.environment | store]
        self._start(commands, environments, self.prefix)

    def resume(self) -> None:
        """Resume the run, or start it if there is none: as many processes, without an agent."""
        started = (self.directory / "config.yaml").exists()
        words = ["virtex", *self._words(), *(["--resume-from", "latest"] if started else [])]
        size = self.launcher.processes
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        rendezvous["WORLD_SIZE"] = str(size)
        environments = [{**rendezvous, "RANK": str(rank)} for rank in range(size)]
        self._start([words] * size, environments)

    def _words(self) -> list[object]:
        return [
            *("pretrain", "--config", self.config, "--serialization-dir", self.directory),
            *("--checkpoint-every", EVERY, "--log-every", 1, "--cpu-workers", self.loader_workers),
            *("--rendezvous-timeout", 80, *self.flags),
        ]

    def _start(
        self,
        commands: Sequence[Sequence[object]],
        environments: Sequence[dict[str, str]],
        prefix: Sequence[str] = (),
    ) -> None:
        common = {**os.environ, "OMP_NUM_THREADS": "1", MARK: self.mark}
        with self.console.open("ab") as console:
            self.agents = [
                subprocess.Popen(
                    [*prefix, sys.executable, "-m", *map(str, command)],
                    env={**common, **environment},
                    start_new_session=True,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                )
                for command, environment in zip(commands, environments, strict=True)
            ]

    def processes(self) -> list[Process]:
        """All living processes of the job, wherever they are in the process tree."""
        return list(_marked(self.mark))

    def ranks(self) -> dict[int, int]:
        """The process id of each rank that has started."""
        found: dict[int, int] = {}
        agents = [agent.pid for agent in self.agents]
        for process in self.processes():
            if process.parent not in agents or "resource_tracker" in process.words:
                continue
            if process.rank is not None:
                found[process.rank] = process.pid
        return found

    def workers(self) -> list[int]:
        """The process ids of the loader workers."""
        ranks = self.ranks().values()
        return [
            process.pid
            for process in self.processes()
            if process.parent in ranks and "resource_tracker" not in process.words
        ]

    def send(self, number: signal.Signals, pids: list[int]) -> None:
        """Send a signal to those processes that still exist."""
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def end(self) -> None:
        """Kill all remaining processes."""
        while left := self.processes():
            self.send(signal.SIGKILL, [process.pid for process in left])
            time.sleep(0.05)
        for agent in self.agents:
            agent.wait()

    @property
    def ended(self) -> bool:
        """Whether nothing of the job is alive."""
        return None not in self.statuses and not self.processes()

    @property
    def statuses(self) -> list[int | None]:
        """The exit statuses of the agents."""
        return [agent.poll() for agent in self.agents]

    @property
    def log(self) -> str:
        """The log of rank 0, over all sessions."""
        path = self.directory / "log_rank0.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def output(self) -> str:
        """What all processes wrote to the console."""
        return self.console.read_text(encoding="utf-8", errors="replace")

    @property
    def sessions(self) -> int:
        """How often the processes have started their log."""
        return self.log.count(" INFO run directory: ")

    @property
    def iteration(self) -> int:
        """The last iteration of the current or last session; 0 before any."""
        session = self.log.rpartition(" INFO run directory: ")[2]
        return int((re.findall(r"INFO iteration +(\d+)/", session) or ["0"])[-1])

    @property
    def resumed_from(self) -> int:
        """The iteration from which the last session resumed."""
        session = self.log.rpartition(" INFO run directory: ")[2]
        return int((re.findall(r"resuming from .*, iteration (\d+)", session) or ["0"])[-1])

    @property
    def partial_file(self) -> Path | None:
        """The temporary file of a running or interrupted save."""
        return next(self.directory.glob(".checkpoint_*.partial*"), None)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
    return number


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition()` held within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _marked(mark: str) -> Iterator[Process]:
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            if wanted not in environment:
                continue
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended in the meantime
        rank = next((int(one[5:]) for one in environment if one.startswith(b"RANK=")), None)
        yield Process(int(entry.name), parent, words, rank)
