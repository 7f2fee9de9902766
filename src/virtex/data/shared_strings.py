"""Many strings or numbers in a few shared tensors.

A list of Python strings is copied page by page into each loader worker, as reading a string writes
its reference count. Tensors in shared memory are one copy for a process and all its workers, forked
or spawned.
"""

import hashlib
from array import array
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch


class StringPacker:
    """A builder of `PackedStrings`."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        # Broken JSON escapes can leave half a surrogate pair, which UTF-8 cannot encode.
        self._text += text.encode("utf-8", errors="replace")
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def packed(self) -> "PackedStrings":
        """The strings so far, in shared memory."""
        return PackedStrings(
            shared(np.frombuffer(self._text, np.uint8)), shared(np.frombuffer(self._ends, np.int64))
        )


class PackedStrings:
    """An immutable sequence of strings in two tensors: UTF-8 bytes, and where each string ends."""

    def __init__(self, text: torch.Tensor, ends: torch.Tensor) -> None:
        """`text` is uint8; `ends` is int64, a 0 and then the end of each string in `text`."""
        self._text = text
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self._ends.numpy()[index : index + 2]
        return self._text.numpy()[start:end].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        text = self._text.numpy().tobytes()
        for start, end in pairwise(self._ends.tolist()):
            yield text[start:end].decode()

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both tensors: text and ends."""
        return self._text, self._ends


def hashed(*tensors: torch.Tensor) -> str:
    """SHA-256 of the content of one-dimensional tensors, in hex."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(len(tensor).to_bytes(8, "big"))
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def shared(values: npt.NDArray[np.generic]) -> torch.Tensor:
    """Copy a writable array to a tensor in memory that all processes of the job share."""
    tensor = torch.from_numpy(values)
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor
