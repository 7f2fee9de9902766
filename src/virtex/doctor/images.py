"""Findings on the images of a split, and on images that are in both splits."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from virtex.doctor.findings import BadImages, Finding
from virtex.doctor.image_facts import THUMBNAIL, ImageFacts

_LOW_CONTRAST = 2.0
_MOST_ELONGATED = 4.0
_PLACEHOLDER = 3
_NEAR_BITS = 10
_NEAR_CORRELATION = 0.98
"""On 16 million pairs of different aerial photographs, no pair is as similar by both."""
_BLOCK = 1024


def image_findings(
    split: str, facts: Sequence[ImageFacts], crop: int | None, bad: BadImages
) -> Iterator[Finding]:
    """What is wrong with single images, or remarkable, for crops of `crop` pixels if known.

    `bad` is what becomes of those that cannot be read.
    """
    unread = [fact for fact in facts if fact.problem is not None]
    good = [fact for fact in facts if fact.problem is None]
    total = len(facts)
    if unread:
        yield Finding.of_items(
            "unreadable-images",
            bad.severity,
            f"{split} images that cannot be read",
            [f"{fact.name}: {fact.problem}" for fact in unread],
            total=total,
            advice=f"repair or remove them{bad.otherwise}",
        )
    flat = [fact for fact in good if fact.contrast < _LOW_CONTRAST]
    if flat:
        yield Finding.of_items(
            "near-constant-images",
            "warning",
            f"{split} images with nearly the same value everywhere",
            [f"{fact.name}: standard deviation {fact.contrast:.1f} of 255" for fact in flat],
            total=total,
            advice="look at them: black or empty exports, or a wrong DATA.PIXEL_RANGE?",
        )
    yield from _small(split, good, crop)
    long = [fact for fact in good if _elongation(fact) > _MOST_ELONGATED]
    if long:
        yield Finding.of_items(
            "elongated-images",
            "warning",
            f"{split} images that are more than {_MOST_ELONGATED:g} times as long as wide, of which"
            " a crop shows little",
            [f"{fact.name}: {fact.width} x {fact.height}" for fact in long],
            total=total,
            advice="cut or remove banners, strips and scans of several pages",
        )
    turned = [fact.name for fact in good if fact.is_turned]
    if turned:
        text = f"{split} images that are turned upright by their Exif orientation"
        yield Finding.of_items("turned-images", "note", text, turned, total=total)
    yield from _repeated(split, good)


def _small(split: str, facts: Sequence[ImageFacts], crop: int | None) -> Iterator[Finding]:
    sides = [min(fact.height, fact.width) for fact in facts]
    if not sides:
        return
    least = crop / 2 if crop is not None else float(np.median(sides)) / 4
    small = [fact for fact, side in zip(facts, sides, strict=True) if side < least]
    than = f"half the crop of {crop} pixels" if crop is not None else "a quarter of the median"
    if small:
        yield Finding.of_items(
            "small-images",
            "warning",
            f"{split} images with a side of less than {than}, {least:.0f} pixels",
            [f"{fact.name}: {fact.width} x {fact.height}" for fact in small],
            total=len(facts),
            advice="replace or remove thumbnails"
            + (", or set a smaller DATA.IMAGE_CROP_SIZE" if crop is not None else ""),
        )


def _elongation(fact: ImageFacts) -> float:
    return max(fact.height, fact.width) / min(fact.height, fact.width)


def _repeated(split: str, facts: Sequence[ImageFacts]) -> Iterator[Finding]:
    groups = [group for group in by_digest(facts).values() if len(group) > 1]
    placeholders = [group for group in groups if len(group) >= _PLACEHOLDER]
    pairs = [group for group in groups if len(group) < _PLACEHOLDER]
    if placeholders:
        yield Finding.of_items(
            "placeholder-images",
            "problem",
            f"{split} images of which there are three copies or more, pixel for pixel, such as"
            ' "image not available"',
            [f"{len(group):,} times: {_names(group)}" for group in placeholders],
            advice="remove them if they show nothing that their captions describe",
        )
    if pairs:
        yield Finding.of_items(
            "duplicate-images",
            "warning",
            f"{split} images that occur twice, pixel for pixel",
            [_names(group) for group in pairs],
            advice="remove one of each, or give one image both captions",
        )


def by_digest(facts: Sequence[ImageFacts]) -> dict[bytes, list[ImageFacts]]:
    """The images with the same pixels, of different records."""
    groups: dict[bytes, dict[int, ImageFacts]] = defaultdict(dict)
    for fact in facts:
        if fact.problem is None and fact.contrast >= _LOW_CONTRAST:
            groups[fact.digest].setdefault(fact.position, fact)
    return {digest: list(group.values()) for digest, group in groups.items()}


def _names(group: Sequence[ImageFacts]) -> str:
    return ", ".join(fact.name for fact in group[:3]) + (", …" if len(group) > 3 else "")


def leaks(
    training: Sequence[ImageFacts], validation: Sequence[ImageFacts]
) -> list[tuple[ImageFacts, ImageFacts, bool]]:
    """Pairs of a training and a validation image that are the same, and whether pixel for pixel.

    Others have difference hashes of which at most 10 of 64 bits differ, and thumbnails with a
    correlation of at least 0.98: the same image in another size or compression. Of each
    validation image there is at most one pair.
    """
    exact = by_digest(training)
    found = []
    rest = []
    for fact in validation:
        if fact.problem is None and fact.contrast >= _LOW_CONTRAST:
            if fact.digest in exact:
                found.append((exact[fact.digest][0], fact, True))
            else:
                rest.append(fact)
    usable = [group[0] for group in exact.values()]
    return found + [(usable[one], rest[other], False) for other, one in _near(usable, rest)]


def leak_findings(pairs: Sequence[tuple[ImageFacts, ImageFacts, bool]]) -> Iterator[Finding]:
    """The findings on images in both splits."""
    advice = "remove them from one of the splits; the figures of validation are too good otherwise"
    exact = [f"{one.name} = {other.name}" for one, other, same in pairs if same]
    if exact:
        yield Finding.of_items(
            "leaked-images",
            "problem",
            "validation images that are training images too, pixel for pixel",
            exact,
            advice=advice,
        )
    near = [f"{one.name} ~ {other.name}" for one, other, same in pairs if not same]
    if near:
        yield Finding.of_items(
            "leaked-near-duplicates",
            "problem",
            "validation images that look the same as a training image, in another size or"
            " compression",
            near,
            advice=f"look at the pairs, and {advice}",
        )


def _near(
    training: Sequence[ImageFacts], validation: Sequence[ImageFacts]
) -> Iterator[tuple[int, int]]:
    """The positions of a validation image and of the training image that is most like it."""
    if not training:
        return
    hashes = np.array([fact.difference_hash for fact in training], np.uint64)
    thumbnails = _standardised(training)
    for start in range(0, len(validation), _BLOCK):
        block = validation[start : start + _BLOCK]
        own = np.array([fact.difference_hash for fact in block], np.uint64)
        shown = _standardised(block)
        for number in range(len(block)):
            close = np.flatnonzero(np.bitwise_count(hashes ^ own[number]) <= _NEAR_BITS)
            if not len(close):
                continue
            correlations = thumbnails[close] @ shown[number]
            best = int(np.argmax(correlations))
            if correlations[best] >= _NEAR_CORRELATION:
                yield start + number, int(close[best])


def _standardised(facts: Sequence[ImageFacts]) -> npt.NDArray[np.float32]:
    """The thumbnails with mean 0 and norm 1, (N, 256)."""
    rows = np.zeros((len(facts), THUMBNAIL * THUMBNAIL), np.float32)
    for row, fact in zip(rows, facts, strict=True):
        assert fact.thumbnail is not None
        centred = fact.thumbnail.ravel() - fact.thumbnail.mean()
        row[:] = centred / max(float(np.linalg.norm(centred)), 1e-6)
    return rows
