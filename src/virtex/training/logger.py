"""The logs of a run: console, log file, `scalars.jsonl` and TensorBoard.

A line of `scalars.jsonl` is a JSON object with `iteration` and named numbers. Numbers that a
repeated run reproduces exactly and numbers that it does not (times) are on separate lines.
TensorBoard's thread would not end if an interrupt came while it is given work, so interrupts are
held meanwhile.
"""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from virtex.errors import interrupts_held
from virtex.files import whole_file
from virtex.training.scalars import SCALARS, parse_line


class RunLogger:
    """Writes the logs of one process; only rank 0 writes more than its log file.

    Drops the scalars of iterations from `first` on: an interrupted run may have written them, and
    they will be logged again.
    """

    def __init__(self, directory: Path, *, rank: int, first: int) -> None:
        self._to_file = logging.FileHandler(directory / f"log_rank{rank}.txt", encoding="utf-8")
        self._to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.logger = logging.Logger("virtex", level=logging.INFO)
        self.logger.addHandler(self._to_file)
        self._warned: set[str] = set()
        self._scalars = None
        self._board = None
        if rank == 0:
            to_console = logging.StreamHandler(sys.stdout)
            to_console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            self.logger.addHandler(to_console)
            _drop_later_scalars(directory / SCALARS, first)
            self._scalars = (directory / SCALARS).open("a", encoding="utf-8")
            with interrupts_held():
                self._board = SummaryWriter(str(directory), purge_step=first)

    def info(self, message: str) -> None:
        self.logger.info(message)

    def warning(self, message: str) -> None:
        """Log a warning about something that the user should act on."""
        self.logger.warning(message)

    def warning_once(self, message: str) -> None:
        """Log a warning unless it was logged before, with the number of different ones so far."""
        if message not in self._warned:
            self._warned.add(message)
            self.warning(f"{message} ({len(self._warned)} so far)")

    def log_error(self, message: str) -> None:
        """Write an error to the log file alone, as the console shows it anyway."""
        line = self.logger.makeRecord("virtex", logging.ERROR, "", 0, message, (), None)
        self._to_file.handle(line)

    def log_scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log named numbers of an iteration, such as `train/loss`."""
        if self._scalars is None or self._board is None:
            return
        self._scalars.write(json.dumps({"iteration": iteration, **values}) + "\n")
        self._scalars.flush()
        with interrupts_held():
            for name, value in values.items():
                self._board.add_scalar(name, value, iteration)

    def log_text(self, iteration: int, name: str, text: str) -> None:
        """Log a Markdown text to TensorBoard."""
        if self._board is not None:
            with interrupts_held():
                self._board.add_text(name, text, iteration)

    def log_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """Log an image, (H, W, 3) uint8, to TensorBoard."""
        if self._board is not None:
            with interrupts_held():
                self._board.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        if self._scalars is not None:
            self._scalars.close()
        if self._board is not None:
            with interrupts_held():
                self._board.close()
        for handler in list(self.logger.handlers):
            self.logger.removeHandler(handler)
            handler.close()


def log_evaluation(directory: Path, iteration: int, values: Mapping[str, float]) -> None:
    """Log named numbers to TensorBoard for a checkpoint of a run that is not in progress."""
    with interrupts_held(), SummaryWriter(str(directory)) as board:
        for name, value in values.items():
            board.add_scalar(name, value, iteration)


def _drop_later_scalars(path: Path, first: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        scalars = parse_line(line)
        if scalars is None:
            break  # after a killed run or a power failure; nothing after it can be trusted
        if scalars["iteration"] < first and line.endswith("\n"):
            kept.append(line)
    with whole_file(path) as file:
        file.write("".join(kept).encode())
