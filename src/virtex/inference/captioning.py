"""Captions for image files: read ahead, captioned in batches, written as they come."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TextIO, assert_never

import torch
from torch import Tensor

from virtex.config.schema import Config
from virtex.data.images import BadImage
from virtex.data.sources.find_images import path_of
from virtex.decoding.captioner import BeamSearch, Caption, Captioner, NucleusSampling, Strategy
from virtex.errors import RunError, UserError
from virtex.inference.pretrained import Pretrained
from virtex.inference.results import Captioned, Form, Result, result_writer, shown

_READERS = 4
"""Threads that read images, which is also how many whole images are in memory at once."""

DecoderName = Literal["beam_search", "nucleus_sampling"]


@dataclass(frozen=True)
class Decoding:
    """How the user wants captions found; None is the configuration's. `top` (≥ 1) of each image."""

    decoder: DecoderName | None = None
    beam_size: int | None = None
    nucleus_size: float | None = None
    seed: int | None = None
    top: int = 1


@dataclass(frozen=True)
class _Read:
    path: Path
    pixels: Tensor  # (1, 3, H, W) uint8 on the CPU


def decoding_strategy(config: Config, wanted: Decoding) -> Strategy:
    """The strategy; raises `UserError` for a value that it does not have or cannot fulfil."""
    configured = config.model.decoder
    name = configured.name if wanted.decoder is None else wanted.decoder
    match name:
        case "beam_search":
            _refuse(name, nucleus_size=wanted.nucleus_size, seed=wanted.seed)
            beams = configured.beam_size if wanted.beam_size is None else wanted.beam_size
            if wanted.top > beams:
                raise UserError(
                    f"--top {wanted.top}: a search with a beam size of {beams} finds {beams} "
                    f"captions; give --beam-size {wanted.top}, or a --top of at most {beams}"
                )
            return BeamSearch(beams)
        case "nucleus_sampling":
            _refuse(name, beam_size=wanted.beam_size)
            size = wanted.nucleus_size
            return NucleusSampling(
                nucleus_size=configured.nucleus_size if size is None else size,
                samples=wanted.top,
                seed=config.random_seed if wanted.seed is None else wanted.seed,
            )
        case _:
            assert_never(name)


def caption_images(
    pretrained: Pretrained,
    captioner: Captioner,
    images: Sequence[Path | BadImage],
    *,
    top: int,
    batch_size: int,
) -> Iterator[list[Result]]:
    """The results of each batch of images, in order, with at most `top` captions of an image.

    Sampling knows an image by the pixels that the model sees: its captions depend neither on its
    name and place nor on the other images.
    """

    def read(image: Path | BadImage) -> _Read | BadImage:
        if isinstance(image, BadImage):
            return image
        try:
            return _Read(image, pretrained.crops([image]))
        except BadImage as error:
            return error

    for batch in _read_ahead(read, images, batch_size):
        whole = [image for image in batch if isinstance(image, _Read)]
        captions = iter(_caption(captioner, whole, pretrained.device))
        yield [
            Captioned(image.path, tuple(next(captions)[:top]))
            if isinstance(image, _Read)
            else image
            for image in batch
        ]


def write_captions(
    batches: Iterator[list[Result]],
    images: Sequence[Path | BadImage],
    output: Path | None,
    form: Form,
    *,
    advance: Callable[[int], None],
    warn: Callable[[str], None],
) -> int:
    """Write the results of `images` as they come; how many are `BadImage`.

    They go to the end of a file, or to standard output. `advance` counts the results of each batch,
    `warn` names each image that was skipped. Raises `UserError` where the file cannot be
    opened, and `RunError` where it cannot be written on.
    """
    bad = 0
    width = max((len(shown(path_of(image))) for image in images), default=0)
    with (
        _silent_pillow(),
        _opened(output) as stream,
        result_writer(stream, form, path_width=width) as write,
    ):
        for batch in batches:
            for result in batch:
                if isinstance(result, BadImage):
                    bad += 1
                    warn(f"skipped {shown(result.path)}: {result.reason}")
                write(result)
            stream.flush()
            advance(len(batch))
    return bad


def _refuse(decoder: DecoderName, **values: object) -> None:
    for name, value in values.items():
        if value is not None:
            other = {"beam_search": "nucleus_sampling", "nucleus_sampling": "beam_search"}[decoder]
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{flag} {value} is for {other}, but captions are found by {decoder}; "
                f"give --decoder {other}, or leave {flag} out"
            )


def _read_ahead(
    read: Callable[[Path | BadImage], _Read | BadImage],
    images: Sequence[Path | BadImage],
    batch_size: int,
) -> Iterator[list[_Read | BadImage]]:
    """Batches of images that are read while the batch before is in use."""
    with ThreadPoolExecutor(_READERS) as readers:
        reading: list[Future[_Read | BadImage]] = []
        for first in range(0, len(images) + batch_size, batch_size):
            following = images[first : first + batch_size]
            current, reading = reading, [readers.submit(read, each) for each in following]
            if current:
                yield [future.result() for future in current]


def _caption(
    captioner: Captioner, batch: Sequence[_Read], device: torch.device
) -> list[list[Caption]]:
    if not batch:
        return []
    try:
        return captioner.caption(
            torch.cat([image.pixels for image in batch]).to(device),
            [_key(image.pixels) for image in batch],
        )
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU's memory is too small for {len(batch)} images at once; "
            "give a smaller --batch-size"
        ) from error


def _key(pixels: Tensor) -> int:
    content = pixels.contiguous().numpy().tobytes()
    return int.from_bytes(blake2b(content, digest_size=8).digest())


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        stream = output.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    try:
        with stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(
            f"cannot go on writing {output}: {error.strerror}; make room and repeat the command, "
            "with --continue if these are JSON lines"
        ) from error


@contextmanager
def _silent_pillow() -> Iterator[None]:
    """Without its warnings of odd metadata and large images, which say no file's name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield
