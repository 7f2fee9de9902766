"""Contact sheets: images in a grid with their captions below them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from virtex.plots.fonts import choose_font, missing_letters
from virtex.plots.lettering import wrap

TILE = 192
"""Side of an image on the sheet, in pixels."""

_FONT_SIZE = 12
_LINE_HEIGHT = 14
_MAX_LINES = 4
_MARGIN = 8


def as_rgb(image: np.ndarray) -> np.ndarray:
    """The first three bands of an image (H, W, N), or the first as grey if there are fewer."""
    if image.shape[2] == 3:
        return image
    shown = image[:, :, :3] if image.shape[2] > 3 else np.repeat(image[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(shown)


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int = 4
) -> np.ndarray:
    """An (H, W, 3) uint8 sheet of (h, w, N) uint8 images, each with a caption of up to four lines.

    Of other than RGB images, bands are shown as by `as_rgb`. All captions are in one font if it has
    all letters, otherwise each in a font that has most of its own.
    """
    rows = -(-len(images) // columns)
    width, height = TILE + _MARGIN, TILE + _LINE_HEIGHT * _MAX_LINES + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    text = " ".join(captions)
    shared = choose_font(text, _FONT_SIZE)
    lacking = missing_letters(text, shared)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = _MARGIN + index % columns * width
        y = _MARGIN + index // columns * height
        tile = Image.fromarray(as_rgb(image)).resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(tile, (x, y))
        font = choose_font(caption, _FONT_SIZE) if lacking else shared
        lines = wrap(caption, font, TILE)[:_MAX_LINES]
        draw.multiline_text((x, y + TILE + 2), "\n".join(lines), fill="black", font=font, spacing=2)
    return np.asarray(sheet)
