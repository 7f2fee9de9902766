"""Fonts that are installed for a test: squares for the letters of scripts that no machine has."""

import shutil

import numpy as np
import pytest
from tests.plots.tiny_font import tiny_font

from virtex.plots.contact_sheet import contact_sheet
from virtex.plots.fonts import choose_font, font_advice, missing_letters

CUNEIFORM, TANGUT, UNKNOWN = "\U00012000\U00012001", "\U00017000\U00017001", "\U00018b00"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a font with some letters for the user, where the system looks for fonts."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def add(letters, name):
        path = tmp_path / "data" / "fonts" / f"{name}-Regular.ttf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_font(letters, name))

    return add


@pytest.mark.parametrize(
    ("letters", "with_fontconfig"), [(CUNEIFORM, True), (TANGUT, False)], ids=["fc-list", "search"]
)
def test_a_font_that_is_installed_is_found(install, monkeypatch, letters, with_fontconfig):
    if with_fontconfig and shutil.which("fc-list") is None:
        pytest.skip("fontconfig is not installed")
    if not with_fontconfig:
        monkeypatch.setenv("PATH", "")
    install(letters, "Squares")
    install("xyz", "Others")
    font = choose_font(letters, 12)
    assert font.getname() == ("Squares", "Regular")
    assert not missing_letters(letters, font)
    assert font_advice([letters, "plain", "café"]) is None
    image = np.full((20, 20, 3), 255, np.uint8)
    drawn = (contact_sheet([image], [letters]) < 128).all(axis=2)
    rows, columns = drawn.nonzero()
    side = np.ptp(columns) + 1  # of two squares of 0.9 em, 1 em apart
    assert abs(side - 1.9 * 12) <= 2
    assert drawn.sum() > 0.7 * (np.ptp(rows) + 1) * side


def test_a_script_without_a_font_is_named_with_a_remedy(install):
    install("xyz", "Others")
    advice = font_advice(["a plain caption", f"two {UNKNOWN}"])
    assert "no installed font has all letters of Khitan, which are drawn as ?" in advice
    assert "install the Noto fonts" in advice


def test_a_mark_without_its_glyph_is_missing():
    font = choose_font("plain", 12)
    assert missing_letters("กิ", font) == set("กิ")
    assert missing_letters("a\u200d b", font) == set()
