"""A few values by key, of which the one used least recently makes room for a new one."""

from collections.abc import Callable, ValuesView
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class RecentlyUsed(Generic[K, V]):
    """Values whose sizes are at most `most` together; the one put last stays whatever its size."""

    def __init__(self, most: int, size: Callable[[V], int] | None = None) -> None:
        """Each value counts as 1 without `size`."""
        self._most, self._size = most, size
        self._values: dict[K, V] = {}  # the one used last at the end

    def get(self, key: K) -> V | None:
        """The value of a key, which is then the one used last."""
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def put(self, key: K, value: V) -> list[V]:
        """Keep a value as the one used last; returns those that had to go."""
        self._values.pop(key, None)
        self._values[key] = value
        dropped = []
        while len(self._values) > 1 and self._total() > self._most:
            dropped.append(self._values.pop(next(iter(self._values))))
        return dropped

    def drop(self, key: K) -> None:
        """Forget a key, if it is there."""
        self._values.pop(key, None)

    def values(self) -> ValuesView[V]:
        """All of them."""
        return self._values.values()

    def _total(self) -> int:
        return len(self._values) if self._size is None else sum(map(self._size, self.values()))
