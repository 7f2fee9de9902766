"""A cache that drops the least recently used values."""

from collections.abc import Callable, ValuesView
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class RecentlyUsed(Generic[K, V]):
    """Values of at most `most` in total; the last one that was put stays whatever its size."""

    def __init__(self, most: int, size: Callable[[V], int] | None = None) -> None:
        """`size` gives the size of a value; each counts as 1 if it is None."""
        self._most, self._size = most, size
        self._values: dict[K, V] = {}  # the last used at the end

    def get(self, key: K) -> V | None:
        """The value of a key, which becomes the last used; None if it is not there."""
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def put(self, key: K, value: V) -> list[V]:
        """Add a value as the last used; returns the values that were dropped for it."""
        self._values.pop(key, None)
        self._values[key] = value
        dropped = []
        while len(self._values) > 1 and self._total() > self._most:
            dropped.append(self._values.pop(next(iter(self._values))))
        return dropped

    def drop(self, key: K) -> None:
        """Remove a key, if it is there."""
        self._values.pop(key, None)

    def values(self) -> ValuesView[V]:
        """The values, the last used at the end."""
        return self._values.values()

    def _total(self) -> int:
        return len(self._values) if self._size is None else sum(map(self._size, self.values()))
