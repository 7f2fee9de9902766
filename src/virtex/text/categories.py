"""The vocabulary of object categories: names by index, in the order of the annotations, from 1."""

from dataclasses import dataclass

BACKGROUND = 0
"""The index of no category; also fills up short rows of labels."""


@dataclass(frozen=True)
class Categories:
    """The names of categories 1, 2, …"""

    names: tuple[str, ...]

    @property
    def vocab_size(self) -> int:
        """The number of indices: the background's and the categories'."""
        return 1 + len(self.names)

    def name(self, index: int) -> str:
        """The name of an index, 0 … `vocab_size` - 1."""
        return "background" if index == BACKGROUND else self.names[index - 1]
