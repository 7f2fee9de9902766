"""The options that only some protocols have, by the names of their flags and arguments."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from virtex.errors import UserError

FEATURES = ("knn", "linear", "low-shot", "voc07", "words")
"""Protocols on frozen features."""
HEADS = ("captioning", "zero-shot", "retrieval")
"""Protocols that use the captioning head."""
PROTOCOLS = (*FEATURES, "scenes", *HEADS)

_OPTIONS = {
    "network": FEATURES,
    "image_size": FEATURES,
    "cache_dir": FEATURES,
    "processes": FEATURES,
    "seed": (*FEATURES, "zero-shot", "retrieval"),
    "engine": ("voc07",),
    "on_bad_image": (*FEATURES, *HEADS),
    "max_pixels": (*FEATURES, *HEADS),
    "max_image_mb": (*FEATURES, *HEADS),
    "tokenizer": (*HEADS, "scenes"),
    "batch_size": HEADS,
    "tokenize": ("captioning",),
    "predictions": ("captioning",),
    "template": ("zero-shot",),
    "class_names": ("zero-shot",),
    "pairs": ("retrieval",),
    "images": ("scenes",),
}
DEFAULTS: Mapping[str, object] = {
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


def check_options(protocol: str, given: Mapping[str, object], *, flags: bool) -> None:
    """Raise `UserError` for options that the protocol does not have; None is not given.

    Messages name flags of the command, or arguments of the function.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"the protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    problems = []
    for name, protocols in _OPTIONS.items():
        if protocol not in protocols and given.get(name) is not None:
            shown = f"--{name.replace('_', '-')}" if flags else name
            of_features = protocols == FEATURES
            owners = "protocols on frozen features" if of_features else ", ".join(protocols)
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
