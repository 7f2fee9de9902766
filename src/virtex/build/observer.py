"""What is called while data are opened, and whether shards may get indexes beside them."""

from collections.abc import Callable
from dataclasses import dataclass

from virtex.data.remote.directory import ignore_message
from virtex.data.shards.indexing import OnIndexed, ignore_progress


@dataclass(frozen=True)
class Observer:
    """What is called while data are opened: with the progress of indexing, and with lines.

    Indexes of shards are written beside them only if these may be `touched`.
    """

    on_indexed: OnIndexed = ignore_progress
    notify: Callable[[str], None] = ignore_message
    touched: bool = True


SILENT = Observer()
