"""Examples: records that are read, augmented and encoded for a task, as a function of a key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from virtex.data.images import DEFAULT_LIMITS, BadImage, ImageLimits, OnBadImage, read_image
from virtex.data.pixel_values import DEFAULT_PIXELS, PixelSettings
from virtex.data.records import Record, Records
from virtex.data.transforms import Augmented, Transform
from virtex.errors import UserError

Example = dict[str, object]
Encode = Callable[[Record, Augmented, np.random.Generator], Example]

# Training does not reach this epoch, so validation has draws of its own, the same each time.
VALIDATION_EPOCH = 2**32 - 1
_MOST_BAD_IN_A_ROW = 100


class Key(NamedTuple):
    """The example of the record at `position` (0 … N-1), as augmented in `epoch`."""

    epoch: int
    position: int


@dataclass(frozen=True, eq=False)
class ExampleDataset:
    """Records turned into examples; everything random is drawn from (`seed`, epoch, index).

    With `on_bad_image` "error" a bad image file raises BadImage. With "skip", training takes the
    next readable record in its place, because the processes of a job need batches of one size;
    validation leaves it out, so that nothing counts twice. `examples` returns the error of every
    skipped file.
    """

    records: Records
    transforms: Sequence[Transform]
    encode: Encode
    seed: int
    on_bad_image: OnBadImage = "error"
    limits: ImageLimits = DEFAULT_LIMITS
    pixels: PixelSettings = DEFAULT_PIXELS

    def __len__(self) -> int:
        return len(self.records)

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of examples in each shard, in order, (S,)."""
        return self.records.shard_sizes

    @property
    def fingerprint(self) -> str:
        """A digest of the records, equal for equal records."""
        return self.records.fingerprint

    def __getitem__(self, key: tuple[int, int]) -> Example:
        """The example of a key (epoch, position); raises BadImage with either `on_bad_image`."""
        return self._example(Key(*key), self.records[key[1]])

    def examples(self, keys: Sequence[Key]) -> tuple[list[Example], list[BadImage]]:
        """The examples of a batch, and the errors of the files that were skipped.

        Raises BadImage under "error", and UserError when a hundred files in a row are bad.
        """
        examples: list[Example] = []
        bad: list[BadImage] = []
        for key in keys:
            try:
                examples.append(self[key])
            except BadImage as error:
                if self.on_bad_image == "error":
                    raise
                bad.append(error)
                if key.epoch != VALIDATION_EPOCH:
                    examples.append(self._replacement(key, bad))
        return examples, bad

    def _replacement(self, key: Key, bad: list[BadImage]) -> Example:
        """The next record that can be read, with the randomness of `key`; adds to `bad`."""
        for step in range(1, min(_MOST_BAD_IN_A_ROW, len(self))):
            try:
                return self._example(key, self.records[(key.position + step) % len(self)])
            except BadImage as error:
                bad.append(error)
        raise UserError(
            f"{min(_MOST_BAD_IN_A_ROW, len(self))} images in a row are bad, so DATA.ROOT or the"
            f" data set is probably wrong. The last: {bad[-1]}"
        )

    def _example(self, key: Key, record: Record) -> Example:
        rng = np.random.default_rng([self.seed, *key])
        image = record.image
        if record.others:  # drawn only then, so that no other draw moves
            image = (image, *record.others)[int(rng.integers(1 + len(record.others)))]
        augmented = Augmented(read_image(image, self.limits, self.pixels))
        for transform in self.transforms:
            augmented = transform(augmented, rng)
        return self.encode(record, augmented, rng)
