"""Saving in the background: the training loop waits for a copy in memory, not for the disk."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from virtex.checkpoints.file import State, save


class BackgroundSaver:
    """Writes one checkpoint at a time in its own thread.

    An error in the thread is raised by the next call of any method. The exit of the process waits
    until the file is complete.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._saving: tuple[Path, Future[None]] | None = None
        self._saved: list[Path] = []

    def save(self, path: Path, state: State) -> None:
        """Copy `state` and start to write the copy; waits for the previous save."""
        self.finish()
        self._saving = path, self._thread.submit(save, path, snapshot(state))

    def finished(self) -> list[Path]:
        """The checkpoints written since the last call."""
        if self._saving is not None and self._saving[1].done():
            self.finish()
        saved, self._saved = self._saved, []
        return saved

    def finish(self) -> None:
        """Wait until everything is written."""
        if self._saving is None:
            return
        (path, future), self._saving = self._saving, None
        future.result()
        self._saved.append(path)


def snapshot(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `state` on the CPU that later steps do not change.

    A tensor that `state` holds under several names is one tensor in the copy.
    """
    copies: dict[object, Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
            if key not in copies:
                copies[key] = value.detach().to("cpu", copy=True)
            return copies[key]
        if isinstance(value, dict):
            return {name: copied(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(copied(inner) for inner in value)
        return value

    return {name: copied(value) for name, value in state.items()}
