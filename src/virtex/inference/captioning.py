"""Captions of image files: read ahead, captioned in batches and written batch by batch."""

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
from virtex.errors import RunError, UserError, printable
from virtex.files import writing
from virtex.inference.pretrained import Pretrained
from virtex.inference.results import Captioned, Format, Result, result_writer

_READERS = 4
"""Threads that read images, and so the number of full-size images in memory at once."""

DecoderName = Literal["beam_search", "nucleus_sampling"]


@dataclass(frozen=True)
class _Loaded:
    path: Path
    pixels: Tensor  # (1, 3, H, W) uint8 on the CPU


def decoding_strategy(
    config: Config,
    *,
    decoder: DecoderName | None,
    beam_size: int | None,
    nucleus_size: float | None,
    seed: int | None,
    top: int,
) -> Strategy:
    """The strategy for `top` (≥ 1) captions per image, by default that of the configuration.

    Raises `UserError` for an option of the other strategy, and for fewer beams than `top`.
    """
    configured = config.model.decoder
    decoder = configured.name if decoder is None else decoder
    match decoder:
        case "beam_search":
            _refuse(decoder, nucleus_size=nucleus_size, seed=seed)
            beams = configured.beam_size if beam_size is None else beam_size
            if top > beams:
                raise UserError(
                    f"--top {top}: a search with a beam size of {beams} finds {beams} captions; "
                    f"give --beam-size {top}, or a --top of at most {beams}"
                )
            return BeamSearch(beams)
        case "nucleus_sampling":
            _refuse(decoder, beam_size=beam_size)
            return NucleusSampling(
                nucleus_size=configured.nucleus_size if nucleus_size is None else nucleus_size,
                samples=top,
                seed=config.random_seed if seed is None else seed,
            )
        case _:
            assert_never(decoder)


def _refuse(decoder: DecoderName, **values: object) -> None:
    other = "nucleus_sampling" if decoder == "beam_search" else "beam_search"
    for name, value in values.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{flag} {value} is an option of {other}, but the decoder is {decoder}; "
                f"give --decoder {other}, or remove {flag}"
            )


def caption_images(
    pretrained: Pretrained,
    captioner: Captioner,
    images: Sequence[Path | BadImage],
    *,
    top: int,
    batch_size: int,
) -> Iterator[list[Result]]:
    """The results of each batch of images, in order, with at most `top` captions per image.

    Sampling identifies an image by the pixels that the model sees, so its captions depend neither
    on its path nor on the other images.
    """

    def read(image: Path | BadImage) -> _Loaded | BadImage:
        if isinstance(image, BadImage):
            return image
        try:
            return _Loaded(image, pretrained.crops([image]))
        except BadImage as error:
            return error

    for batch in _read_ahead(read, images, batch_size):
        loaded = [image for image in batch if isinstance(image, _Loaded)]
        captions = iter(_caption(captioner, loaded, pretrained.device))
        yield [
            Captioned(image.path, tuple(next(captions)[:top]))
            if isinstance(image, _Loaded)
            else image
            for image in batch
        ]


def _read_ahead(
    read: Callable[[Path | BadImage], _Loaded | BadImage],
    images: Sequence[Path | BadImage],
    batch_size: int,
) -> Iterator[list[_Loaded | BadImage]]:
    """Batches of images; each is read while the previous one is in use."""
    with ThreadPoolExecutor(_READERS) as readers:
        reading: list[Future[_Loaded | BadImage]] = []
        for first in range(0, len(images) + batch_size, batch_size):
            following = images[first : first + batch_size]
            current, reading = reading, [readers.submit(read, image) for image in following]
            if current:
                yield [future.result() for future in current]


def _caption(
    captioner: Captioner, batch: Sequence[_Loaded], device: torch.device
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


def write_captions(
    batches: Iterator[list[Result]],
    images: Sequence[Path | BadImage],
    output: Path | None,
    form: Format,
    *,
    advance: Callable[[int], None],
    warn: Callable[[str], None],
) -> int:
    """Append the results of `images` to a file or standard output; returns how many are bad.

    `advance` counts the results of each batch, `warn` names each image that was skipped. Raises
    `UserError` if the file cannot be opened, and `RunError` if writing fails later.
    """
    bad = 0
    width = max((len(printable(path_of(image))) for image in images), default=0)
    with (
        _silent_pillow(),
        _opened(output) as stream,
        result_writer(stream, form, path_width=width) as write,
    ):
        for batch in batches:
            for result in batch:
                if isinstance(result, BadImage):
                    bad += 1
                    warn(f"skipped {printable(result.path)}: {result.reason}")
                write(result)
            stream.flush()
            advance(len(batch))
    return bad


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        stream = output.open("a", encoding="utf-8")
    try:
        with stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(
            f"cannot write more to {output}: {error.strerror}; free some space and repeat the "
            "command, with --continue if the format is jsonl"
        ) from error


@contextmanager
def _silent_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings about metadata and large images, which do not name the file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield
