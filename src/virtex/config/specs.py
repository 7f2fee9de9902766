"""Parsers of the settings whose text has several parts; no text is ever evaluated.

`transdec_postnorm::L1_H1024_A16_F4096` is a textual head, `torchvision::resnet50` a backbone,
`random_resized_crop::{'scale': (0.08, 1.0)}` a transform. Each parser raises `ValueError` that
tells what was expected.
"""

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from virtex.config.earlier_names import todays_architecture


@dataclass(frozen=True)
class TextualArchitecture:
    """Sizes of a transformer; `norm_first` tells pre-norm from post-norm layers."""

    norm_first: bool
    layers: int
    width: int
    heads: int
    feedforward: int


@dataclass(frozen=True)
class TransformSpec:
    """A transform's name, and all of its arguments, with defaults for those not written.

    `written` tells whether any is; transforms of equal arguments are equal.
    """

    name: str
    arguments: Mapping[str, Any]
    written: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class _Argument:
    """What one argument of a transform may be: a number, or a tuple of `len(default)` numbers.

    `for_each_band` allows a tuple of any length.
    """

    default: float | tuple[float, ...]
    highest: float = sys.float_info.max
    positive: bool = False
    ascending: bool = False
    for_each_band: bool = False

    def parse(self, value: object) -> float | tuple[float, ...]:
        """The value as floats; raises `ValueError` that tells what was expected."""
        default = self.default
        numbers = value if isinstance(default, tuple) else (value,)
        if (
            not isinstance(numbers, list | tuple)
            or not self._allows_length(len(numbers))
            or not all(map(self._allows, numbers))
            or (self.ascending and list(numbers) != sorted(numbers))
        ):
            raise ValueError(f"expected {self._expectation()}")
        floats = tuple(map(float, numbers))
        return floats if isinstance(default, tuple) else floats[0]

    def _allows_length(self, length: int) -> bool:
        if self.for_each_band:
            return length > 0
        return length == (len(self.default) if isinstance(self.default, tuple) else 1)

    def _allows(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return 0 <= value <= self.highest and not (self.positive and value == 0)

    def _expectation(self) -> str:
        size = len(self.default) if isinstance(self.default, tuple) else 1
        count = {1: "a number", 2: "two numbers"}.get(size, f"{size} numbers")
        if self.for_each_band:
            count = "a number for each band,"
        bounds = "above 0" if self.positive else "at least 0"
        if self.highest < sys.float_info.max:
            bounds += f" and at most {self.highest:g}"
        return f"{count} {bounds}" + (", the smaller first" if self.ascending else "")


_TRANSFORMS: Mapping[str, Mapping[str, _Argument]] = {
    "random_resized_crop": {
        # Fraction of the image's area, and width / height.
        "scale": _Argument((0.2, 1.0), highest=1, positive=True, ascending=True),
        "ratio": _Argument((0.75, 1.3333), positive=True, ascending=True),
    },
    "horizontal_flip": {"p": _Argument(0.5, highest=1)},
    "color_jitter": {
        "brightness": _Argument(0.4, highest=1),
        "contrast": _Argument(0.4, highest=1),
        "saturation": _Argument(0.4, highest=1),
        # Fraction of the colour circle, in either direction.
        "hue": _Argument(0.1, highest=0.5),
        "p": _Argument(0.8, highest=1),
    },
    # Statistics of ImageNet's training images, RGB from 0 to 1.
    "normalize": {
        "mean": _Argument((0.485, 0.456, 0.406), highest=1, for_each_band=True),
        "std": _Argument((0.229, 0.224, 0.225), highest=1, positive=True, for_each_band=True),
    },
    # Pixels of the shorter side; 0 stands for the crop size.
    "smallest_resize": {"size": _Argument(0)},
    "center_crop": {},
}


LANGUAGES = ("english", "german", "french", "spanish", "italian", "portuguese")
"""The languages whose words of left and right are known, as in `virtex.text.mirror_words`."""

_MOST_CHARACTERS = 1000  # of a transform's arguments


def parse_architecture(text: str) -> TextualArchitecture | None:
    """The sizes in `transdec_{post,pre}norm::L{layers}_H{width}_A{heads}_F{feedforward}`.

    None for `none`, the head without a transformer.
    """
    if text == "none":
        return None
    form = r"transdec_(post|pre)norm::L([0-9]{1,3})_H([0-9]{1,6})_A([0-9]{1,6})_F([0-9]{1,6})"
    match = re.fullmatch(form, text)
    if match is None:
        today = todays_architecture(text)
        if re.fullmatch(form, today):
            raise ValueError(f"expected its name since release 1.0, {today!r}")
        raise ValueError(
            "expected transdec_postnorm or transdec_prenorm with layers, width, heads and "
            "feed-forward width, such as 'transdec_postnorm::L1_H1024_A16_F4096', or 'none'"
        )
    layers, width, heads, feedforward = map(int, match.groups()[1:])
    if 0 in (layers, width, heads, feedforward):
        raise ValueError("expected L, H, A and F of at least 1")
    if width % heads:
        raise ValueError(f"expected a width (H) divisible by the number of heads (A = {heads})")
    return TextualArchitecture(match[1] == "pre", layers, width, heads, feedforward)


def parse_network(text: str) -> str:
    """The model's name in torchvision, from `torchvision::NAME`."""
    match = re.fullmatch(r"torchvision::([a-z][a-z0-9_]*)", text)
    if match is None:
        raise ValueError("expected a network of torchvision, such as 'torchvision::resnet50'")
    return match[1]


def patch_side(network: str) -> int:
    """The side length of a network's patches in pixels; 1 for a network without patches."""
    match = re.fullmatch(r"vit_.+_([1-9][0-9]{0,3})", network)
    return 1 if match is None else int(match[1])


def parse_transform(text: str) -> TransformSpec:
    """Name and arguments from `NAME` or `NAME::{'argument': value}`."""
    name, separator, written = text.partition("::")
    known = _TRANSFORMS.get(name)
    if name == "global_resize":
        raise ValueError(
            f"{name!r}, which ignores the aspect ratio, was a transform of release 0.9; expected "
            "smallest_resize and center_crop, as in later releases"
        )
    if known is None:
        raise ValueError(
            f"{name!r} is an unknown transform; expected one of {', '.join(_TRANSFORMS)}"
        )
    arguments: dict[str, float | tuple[float, ...]]
    arguments = {argument: allowed.default for argument, allowed in known.items()}
    given = _literal(written) if separator else {}
    for argument, value in given.items():
        if argument not in known:
            names = ", ".join(known) or "none"
            raise ValueError(f"{name} has no argument {argument!r}; expected arguments: {names}")
        try:
            arguments[argument] = known[argument].parse(value)
        except ValueError as error:
            raise ValueError(f"{argument} is {value!r}; {error}") from None
    return TransformSpec(name, arguments, written=bool(given))


def parse_transforms(texts: tuple[str, ...]) -> tuple[TransformSpec, ...]:
    """Transforms in order, which must crop images and, at the end, normalise them."""
    transforms = tuple(map(parse_transform, texts))
    names = [transform.name for transform in transforms]
    if names.count("normalize") != 1 or names[-1] != "normalize":
        raise ValueError("expected normalize exactly once, as the last transform")
    if not {"random_resized_crop", "center_crop"} & set(names):
        raise ValueError(
            "expected random_resized_crop or center_crop, so that all images get the crop size"
        )
    return transforms


def parse_mirror_words(texts: tuple[str, ...]) -> tuple[str | tuple[str, str], ...]:
    """Names of `LANGUAGES`, and pairs written `ONE/OTHER`; raises ValueError for others."""
    return tuple(map(_mirror_words, texts))


def _mirror_words(text: str) -> str | tuple[str, str]:
    if text in LANGUAGES:
        return text
    sides = [side.strip() for side in text.split("/")]
    if len(sides) != 2 or not all(sides):
        raise ValueError(
            f"{text!r} is neither a language ({', '.join(LANGUAGES)}) nor a pair of words such as "
            "'backbord/steuerbord'"
        )
    return sides[0], sides[1]


def parse_pattern(text: str) -> re.Pattern[str]:
    """The compiled regular expression."""
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None


def _literal(text: str) -> dict[str, object]:
    try:
        if len(text) > _MOST_CHARACTERS:  # Python's parser is not safe for hostile text.
            raise ValueError
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"{text[:_MOST_CHARACTERS]!r} is not a dictionary literal; "
            "expected arguments such as {'scale': (0.08, 1.0)}"
        )
    return value
