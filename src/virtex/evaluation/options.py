"""The options that only some protocols have, by the names of their flags and arguments."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from virtex.errors import UserError

FEATURES = ("knn", "linear", "low-shot", "voc07", "words")
"""Protocols on frozen features."""
HEADS = ("captioning", "zero-shot", "retrieval")
"""Protocols that use the captioning head."""
DENSE = ("detection", "linear-segmentation")
"""Protocols that train a head on images."""
PROTOCOLS = (*FEATURES, "scenes", *HEADS, *DENSE)

_OPTIONS = {
    "average": (*FEATURES, *HEADS),
    "network": (*FEATURES, *DENSE),
    "image_size": (*FEATURES, "linear-segmentation"),
    "cache_dir": FEATURES,
    "processes": (*FEATURES, "detection"),
    "seed": (*FEATURES, "zero-shot", "retrieval", *DENSE),
    "engine": ("voc07",),
    "on_bad_image": (*FEATURES, *HEADS, *DENSE),
    "max_pixels": (*FEATURES, *HEADS, *DENSE),
    "max_image_mb": (*FEATURES, *HEADS, *DENSE),
    "pixel_range": (*FEATURES, *HEADS, *DENSE),
    "dicom_window": (*FEATURES, *HEADS, *DENSE),
    "dicom_frame": (*FEATURES, *HEADS, *DENSE),
    "tokenizer": (*HEADS, "scenes"),
    "batch_size": (*HEADS, *DENSE),
    "tokenize": ("captioning",),
    "predictions": ("captioning",),
    "template": ("zero-shot",),
    "class_names": ("zero-shot",),
    "pairs": ("retrieval",),
    "images": ("scenes",),
    "iterations": DENSE,
    "learning_rate": DENSE,
    "work_dir": DENSE,
    "save_every": DENSE,
    "resume": DENSE,
    "detector": ("detection",),
    "frozen": ("detection",),
    "min_size": ("detection",),
    "max_size": ("detection",),
    "pyramid_channels": ("detection",),
    "mask_classes": ("linear-segmentation",),
}
_DEFAULTS: Mapping[str, object] = {
    "seed": 0,
    "engine": "sklearn",
    "on_bad_image": "error",
    "batch_size": 32,
    "tokenize": "ptb",
    "pairs": 1000,
    "images": 100,
}
"""The values of options that are None where they are not given."""

_SETTINGS = {
    "set DATA.ON_BAD_IMAGE to skip": "give --on-bad-image skip",
    "DATA.ROOT": "--data",
}
"""Settings of pretraining in messages about data, and what the user of an evaluation gives."""


def defaults_of(protocol: str) -> Mapping[str, object]:
    """The values of the options that are not given."""
    return {**_DEFAULTS, "batch_size": 16} if protocol in DENSE else _DEFAULTS


def check_options(protocol: str, given: Mapping[str, object], *, flags: bool) -> None:
    """Raise `UserError` for options that the protocol does not have.

    None and False are not given. Messages name flags of the command, or arguments of the function.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"the protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    problems = []
    for name, protocols in _OPTIONS.items():
        value = given.get(name)
        if protocol in protocols or value is None or value is False:
            continue
        shown = f"--{name.replace('_', '-')}" if flags else name
        owners = ", ".join(protocols).replace(", ".join(FEATURES), "protocols on frozen features")
        problems.append(f"{shown} is an option of {owners}, not {protocol}")
    if problems:
        raise UserError("; ".join(problems))


@contextmanager
def naming_options() -> Iterator[None]:
    """Let a `UserError` in this context name options where it names settings of pretraining."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for setting, option in _SETTINGS.items():
            message = message.replace(setting, option)
        if message == str(error):
            raise
        raise UserError(message) from error
