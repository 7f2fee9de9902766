"""Contact sheets: images in a grid with their captions below them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from virtex.plots.lettering import choose_font, wrap

TILE = 192
"""Side of an image on the sheet, in pixels."""

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

    Of other than RGB images, bands are shown as by `as_rgb`.
    """
    rows = -(-len(images) // columns)
    width, height = TILE + _MARGIN, TILE + _LINE_HEIGHT * _MAX_LINES + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = choose_font(" ".join(captions), 12)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = _MARGIN + index % columns * width
        y = _MARGIN + index // columns * height
        tile = Image.fromarray(as_rgb(image)).resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(tile, (x, y))
        lines = wrap(caption, font, TILE)[:_MAX_LINES]
        draw.multiline_text((x, y + TILE + 2), "\n".join(lines), fill="black", font=font, spacing=2)
    return np.asarray(sheet)
