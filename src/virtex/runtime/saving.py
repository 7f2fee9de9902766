"""Saving beside the training: the loop waits for a copy in memory, not for the disk."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from virtex.errors import UserError
from virtex.runtime import checkpoint


class BackgroundSaver:
    """Writes one checkpoint at a time in a thread of its own.

    What goes wrong there is raised by the next call of any method here.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._saved: list[Path] = []
        self._error: UserError | None = None

    def save(self, path: Path, state: checkpoint.State) -> None:
        """Begin to write a copy of `state` as it is now; waits for the save before."""
        self.finish()
        held = snapshot(state)
        self._thread = threading.Thread(
            # A process that ends otherwise must not leave before the file is whole.
            target=self._write,
            args=(path, held),
            name="saving",
            daemon=False,
        )
        self._thread.start()

    def finished(self) -> list[Path]:
        """The checkpoints that were written since the last call."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        saved, self._saved = self._saved, []
        return saved

    def finish(self) -> None:
        """Return when all is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, path: Path, state: checkpoint.State) -> None:
        try:
            checkpoint.save(path, state)
        except UserError as error:
            self._error = error
        else:
            self._saved.append(path)


def snapshot(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `state` on the CPU that later steps do not change.

    Tensors that are one in `state`, under several names, are one in the copy.
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
