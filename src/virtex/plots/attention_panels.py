"""Panels of the attention for each word of a caption, as in the VirTex paper."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from virtex.plots.contact_sheet import as_rgb
from virtex.plots.fonts import Font, choose_font
from virtex.plots.lettering import fit, wrap

Pixels = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.floating]

PANEL, HEAD_PANEL = 192, 112
"""Longer side of a panel's image in pixels, without and with panels for each head."""

_MARGIN, _GAP = 16, 8
_TITLE_HEIGHT = 22
_LINE_HEIGHT = 1.4  # in font sizes
_HEADING, _TITLE, _NOTE = 20, 14, 11  # font sizes
_LABEL_WIDTH = 56
_DIMMED = 0.45
"""Brightness of the image where the map is zero; at the peak it is 1."""
_OPAQUE = 0.6
"""Opacity of the colour at the peak, so that the image stays visible there."""
_BRIGHTEST = 220
"""Index of the last colour in use, of 256; the following ones are nearly white."""
_GREY = "dimgrey"


class _Panel(NamedTuple):
    image: Pixels
    title: str = ""
    note: str = ""


_Row = tuple[str, Sequence[_Panel | None]]
"""The label at the left, and the panels from left to right."""


def attention_panels(
    image: Pixels,
    words: Sequence[str],
    maps: Maps,
    *,
    caption: str | None = None,
    heads: bool = False,
    columns: int = 6,
) -> Pixels:
    """A sheet (H', W', 3) uint8: the image, then for each word the image under its map.

    `image` is (H, W, 3) uint8 RGB, or bands, shown as by `as_rgb`; `maps` is (words, heads, h, w)
    ≥ 0 over the whole image. The heading is `caption`, by default the words with spaces between
    them. The panels show the mean of all heads, in rows of `columns`; with `heads`, there is one
    row of means and then one for each head. The brightest colour of a panel is the maximum of its
    own map, which is written beside the word, so the colours of two panels are not comparable.
    """
    side = HEAD_PANEL if heads else PANEL
    photo = _resized(as_rgb(image), side)

    def panels_of(shown: Maps) -> list[_Panel | None]:
        return [
            _Panel(overlay(photo, grid), word, f"{grid.max():.0%}")
            for word, grid in zip(words, shown, strict=True)
        ]

    mean = [_Panel(photo), *panels_of(maps.mean(axis=1))]
    if heads:
        rows: list[_Row] = [("mean", mean)]
        rows += [
            (f"head {head + 1}", [None, *panels_of(maps[:, head])]) for head in range(maps.shape[1])
        ]
    else:
        rows = [("", mean[first : first + columns]) for first in range(0, len(mean), columns)]
    legend = (
        f"The brightest of the {maps.shape[2]} x {maps.shape[3]} positions of a panel has the"
        " share of attention that is written beside the word."
    )
    return _compose(" ".join(words) if caption is None else caption, legend, rows)


def overlay(image: Pixels, grid: Maps) -> Pixels:
    """The image (H, W, 3), grey and dimmed, under a map (h, w) as a smooth heat map.

    Colours range from 0 to the map's peak; a map of zeros gives no colour.
    """
    height, width = image.shape[:2]
    smooth = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    smooth = smooth.clip(min=0.0)  # bicubic interpolation undershoots
    peak = float(smooth.max())
    heat = smooth / peak if peak > 0 else smooth
    colors = cv2.applyColorMap(np.rint(_BRIGHTEST * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)
    heat = heat[..., None]
    light = _DIMMED + (1 - _DIMMED) * heat
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * light
    mixed = grey * (1 - _OPAQUE * heat) + colors[..., ::-1] * (_OPAQUE * heat)
    pixels: Pixels = np.rint(mixed).astype(np.uint8)
    return pixels


def _resized(image: Pixels, side: int) -> Pixels:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _compose(caption: str, legend: str, rows: Sequence[_Row]) -> Pixels:
    """Draw the caption, the legend and the rows; all panels have the same size."""
    title, note, heading = (choose_font(caption, size) for size in (_TITLE, _NOTE, _HEADING))
    panel = next(panel for _, panels in rows for panel in panels if panel is not None)
    across, down = panel.image.shape[1] + _GAP, _TITLE_HEIGHT + panel.image.shape[0] + _GAP
    left = _MARGIN + (_LABEL_WIDTH if any(label for label, _ in rows) else 0)
    width = left + max(len(panels) for _, panels in rows) * across - _GAP + _MARGIN
    text = [
        *((line, heading, "black") for line in wrap(caption, heading, width - 2 * _MARGIN)),
        *((line, note, _GREY) for line in wrap(legend, note, width - 2 * _MARGIN)),
    ]
    top = _MARGIN + sum(round(_LINE_HEIGHT * font.size) for _, font, _ in text) + _GAP
    sheet = Image.new("RGB", (width, top + len(rows) * down - _GAP + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    for line, font, color in text:
        draw.text((_MARGIN, y), line, fill=color, font=font)
        y += round(_LINE_HEIGHT * font.size)
    for row, (label, panels) in enumerate(rows):
        y = top + row * down
        middle = y + _TITLE_HEIGHT + panel.image.shape[0] // 2
        draw.text((_MARGIN, middle), label, fill=_GREY, font=title, anchor="lm")
        for column, each in enumerate(panels):
            if each is not None:
                _place(sheet, (left + column * across, y), each, (title, note))
    return np.asarray(sheet)


def _place(
    sheet: Image.Image, corner: tuple[int, int], panel: _Panel, fonts: tuple[Font, Font]
) -> None:
    x, y = corner
    title, note = fonts
    draw = ImageDraw.Draw(sheet)
    width = panel.image.shape[1]
    baseline = y + _TITLE + 2
    draw.text((x + width, baseline), panel.note, fill=_GREY, font=note, anchor="rs")
    word = fit(panel.title, title, width - round(note.getlength(panel.note)) - _GAP)
    draw.text((x, baseline), word, fill="black", font=title, anchor="ls")
    sheet.paste(Image.fromarray(panel.image), (x, y + _TITLE_HEIGHT))
