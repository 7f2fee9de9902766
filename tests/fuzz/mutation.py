"""Changes of bytes, drawn from a generator: what goes wrong on disks, and what people try."""

from collections.abc import Sequence

import numpy as np

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LARGEST = 1 << 18  # bytes of an input: limits are tested by hand, not here


def mutated(data: bytes, rng: np.random.Generator, words: Sequence[bytes], other: bytes) -> bytes:
    """`data` after 1 to 8 changes; `words` mean something in its format, `other` is of it too."""
    changed = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 3))):
        _change(changed, rng, words, other)
    return bytes(changed[:_LARGEST])


def _change(
    data: bytearray, rng: np.random.Generator, words: Sequence[bytes], other: bytes
) -> None:
    place = _place(data, rng)
    match int(rng.integers(6)):
        case 0:  # one bit, or a byte
            data[place : place + 1] = _altered(data[place : place + 1], rng)
        case 1:  # cut out, or cut off
            del data[place : place + _length(rng) if rng.integers(2) else None]
        case 2:  # a block once more, or many times
            block = data[place : place + _length(rng)]
            data[place:place] = block * int(2 ** rng.uniform(0, 10))
        case 3:  # other bytes between
            data[place:place] = rng.bytes(_length(rng))
        case 4:  # the rest is another file's
            data[place:] = other[_place(other, rng) :]
        case _:
            word = words[int(rng.integers(len(words)))] if rng.integers(2) else _number(rng)
            data[place : place + len(word) * int(rng.integers(2))] = word


def _altered(byte: bytearray, rng: np.random.Generator) -> bytes:
    change = 1 << int(rng.integers(8)) if rng.integers(2) else int(rng.integers(1, 256))
    return bytes(value ^ change for value in byte)


def _number(rng: np.random.Generator) -> bytes:
    size = int(rng.choice([1, 2, 4, 8]))
    extreme = int(rng.choice(_EXTREMES)) % (1 << 8 * size)
    return extreme.to_bytes(size, "little" if rng.integers(2) else "big")


def _place(data: bytes | bytearray, rng: np.random.Generator) -> int:
    """Anywhere, or near one of the ends, where headers and lists are."""
    near = max(1, min(len(data), 200))
    match int(rng.integers(4)):
        case 0:
            return int(rng.integers(near))
        case 1:
            return max(0, len(data) - 1 - int(rng.integers(near)))
        case _:
            return int(rng.integers(max(len(data), 1)))


def _length(rng: np.random.Generator) -> int:
    return int(2 ** rng.uniform(0, 8))
