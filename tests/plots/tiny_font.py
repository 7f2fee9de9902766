"""A TrueType font with a square for each of a few letters and a hollow box for all others."""

import struct

EM = 1000


def tiny_font(letters, name):
    """The bytes of the font."""
    codes = sorted(map(ord, letters))
    box, square = _glyph([(100, 0, 900, 800), (200, 100, 800, 700)]), _glyph([(0, 0, 900, 900)])
    glyphs = [box, *(square for _ in codes)]
    offsets = [sum(map(len, glyphs[:count])) for count in range(len(glyphs) + 1)]
    groups = [struct.pack(">3I", code, code, number + 1) for number, code in enumerate(codes)]
    cmap = struct.pack(">HHIII", 12, 0, 16 + 12 * len(groups), 0, len(groups)) + b"".join(groups)
    head = struct.pack(
        ">4I2H2q4h2H3h", 1 << 16, 1 << 16, 0, 0x5F0F3CF5, 3, EM, 0, 0, 0, 0, 900, 900, 0, 8, 2, 1, 0
    )
    names = [(1, name), (2, "Regular"), (4, name), (6, name)]
    encoded = [(number, text.encode("utf-16-be")) for number, text in names]
    records, texts = b"", b""
    for number, text in encoded:
        records += struct.pack(">6H", 3, 1, 0x409, number, len(text), len(texts))
        texts += text
    count = len(glyphs)
    tables = {
        "cmap": struct.pack(">2H2HI", 0, 1, 3, 10, 12) + cmap,
        "glyf": b"".join(glyphs),
        "head": head,
        "hhea": struct.pack(">I3hH11hH", 1 << 16, 900, 0, 0, EM, *[0] * 11, count),
        "hmtx": struct.pack(">Hh", EM, 0) * count,
        "loca": struct.pack(f">{count + 1}I", *offsets),
        "maxp": struct.pack(">I14H", 1 << 16, count, 8, 2, *[0] * 2, 1, *[0] * 8),
        "name": struct.pack(">3H", 0, len(encoded), 6 + len(records)) + records + texts,
        "post": struct.pack(">2I2h5I", 3 << 16, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    directory, body = b"", b""
    for tag, table in tables.items():
        place = 12 + 16 * len(tables) + len(body)
        directory += tag.encode() + struct.pack(">3I", 0, place, len(table))
        body += table + bytes(-len(table) % 4)
    return struct.pack(">I4H", 1 << 16, len(tables), 128, 3, 16) + directory + body


def _glyph(squares):
    """Outlines of squares (left, bottom, right, top), each four points on the curve."""
    points = [
        point
        for left, bottom, right, top in squares
        for point in ((left, bottom), (left, top), (right, top), (right, bottom))
    ]
    ends = [4 * number + 3 for number in range(len(squares))]
    outline = struct.pack(f">{len(ends)}HH", *ends, 0) + bytes([1] * len(points))
    for axis in (0, 1):
        before = 0
        for point in points:
            outline += struct.pack(">h", point[axis] - before)
            before = point[axis]
    glyph = struct.pack(">5h", len(squares), 0, 0, 900, 900) + outline
    return glyph + bytes(-len(glyph) % 4)
