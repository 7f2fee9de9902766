"""The record of a run: console and log file, `scalars.jsonl`, TensorBoard.

A line of `scalars.jsonl` is one JSON object with `iteration` and named numbers. What repeats
exactly in a repeated run and what does not (times) stand on lines of their own.
"""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from virtex.files import whole_file
from virtex.training.scalars import SCALARS


class Journal:
    """Writes the record of one process; only the `main` process writes more than its log file.

    A run that goes on after iteration `first` - 1 drops the scalars of later iterations, which an
    interrupted run may have left: they come again.
    """

    def __init__(self, directory: Path, *, rank: int, first: int) -> None:
        self._to_file = _file_handler(directory / f"log_rank{rank}.txt")
        self.logger = _logger(self._to_file, console=rank == 0)
        self._warned: set[str] = set()
        self._scalars = None
        self._board = None
        if rank == 0:
            _drop_later_scalars(directory / SCALARS, first)
            self._scalars = (directory / SCALARS).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(directory), purge_step=first)

    def say(self, message: str) -> None:
        """A line for the person who watches."""
        self.logger.info(message)

    def warn(self, message: str) -> None:
        """A line for the person who should do something."""
        self.logger.warning(message)

    def warn_once(self, message: str) -> None:
        """A warning that is not repeated, with the number of different ones so far."""
        if message not in self._warned:
            self._warned.add(message)
            self.warn(f"{message} ({len(self._warned)} so far)")

    def record(self, message: str) -> None:
        """A line for the log file alone, such as an error that the console shows anyway."""
        line = self.logger.makeRecord("virtex", logging.ERROR, "", 0, message, (), None)
        self._to_file.handle(line)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Named numbers of an iteration, such as `train/loss`."""
        if self._scalars is None or self._board is None:
            return
        self._scalars.write(json.dumps({"iteration": iteration, **values}) + "\n")
        self._scalars.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, iteration)

    def page(self, iteration: int, name: str, picture: np.ndarray, text: str) -> None:
        """A picture, (H, W, 3) uint8, and a Markdown text beside it."""
        if self._board is None:
            return
        self._board.add_image(name, picture, iteration, dataformats="HWC")
        self._board.add_text(name, text, iteration)

    def close(self) -> None:
        """Finish the files."""
        if self._scalars is not None:
            self._scalars.close()
        if self._board is not None:
            self._board.close()
        for handler in list(self.logger.handlers):
            self.logger.removeHandler(handler)
            handler.close()


def _file_handler(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _logger(to_file: logging.Handler, *, console: bool) -> logging.Logger:
    logger = logging.Logger("virtex", level=logging.INFO)
    logger.addHandler(to_file)
    if console:
        to_console = logging.StreamHandler(sys.stdout)
        to_console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(to_console)
    return logger


def _drop_later_scalars(path: Path, first: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            iteration = json.loads(line)["iteration"]
        except (ValueError, KeyError, TypeError, RecursionError):
            break  # what a killed run or a power failure left; nothing after it can be trusted
        if iteration < first and line.endswith("\n"):
            kept.append(line)
    with whole_file(path) as file:
        file.write("".join(kept).encode())
