"""How far a run is, in training images and in epochs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplesSeen:
    """The number of training images that a run has taken, each repetition counted.

    It had taken `before` up to iteration `start`, and continues in batches of `batch_size`. An
    epoch is `images`. `num_epochs` are those of `OPTIM.NUM_EPOCHS`; None if it is not set.
    """

    start: int
    before: int
    batch_size: int
    images: int
    num_epochs: float | None

    def samples(self, iteration: int) -> int:
        """The samples up to an iteration that is not before `start`."""
        return self.before + (iteration - self.start) * self.batch_size

    def epochs(self, iteration: int) -> float:
        """The samples as a multiple of the training images."""
        return self.samples(iteration) / self.images

    def scalars(self, iteration: int) -> dict[str, float]:
        """Samples and epochs for `scalars.jsonl`."""
        return {
            "progress/samples_seen": self.samples(iteration),
            "progress/epochs": self.epochs(iteration),
        }

    def to_plain(self, iteration: int) -> dict[str, int | float | None]:
        """Samples and epochs for a checkpoint."""
        return {
            "samples_seen": self.samples(iteration),
            "epochs": self.epochs(iteration),
            "num_epochs": self.num_epochs,
        }

    def describe(self, last: int) -> str:
        """The length of a run up to iteration `last`, for the log."""
        given = "" if self.num_epochs is None else f" (OPTIM.NUM_EPOCHS {self.num_epochs:g})"
        return (
            f"length: {last:,} iterations of {self.batch_size} images, {self.epochs(last):.2f} "
            f"epochs of {self.images:,} training images{given}"
        )
