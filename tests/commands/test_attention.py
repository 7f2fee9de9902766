"""`virtex attention` as a user calls it, and `Pretrained.attention` that it draws."""

import re

import numpy as np
import pytest
from PIL import Image

import virtex
from virtex.cli import main
from virtex.errors import UserError
from virtex.plots.attention_panels import attention_panels


@pytest.fixture
def attention(captioning_model, capsys):
    """A function that gives the exit status and what was printed to stdout and stderr."""

    def run(*arguments):
        words = ["attention", *map(str, arguments), "--checkpoint", str(captioning_model)]
        return main(words), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def model(captioning_model):
    return virtex.load(captioning_model)


def panels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_the_best_caption_is_shown_over_the_picture(
    attention, model, pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    status, out, _ = attention(pictures / "2.png")
    best = model.caption([pictures / "2.png"])[0][0]
    assert (status, out) == (0, f"caption   {best.text}\nwritten   2_attention.png\n")
    looked = model.attention(pictures / "2.png")
    assert looked.text == best.text
    expected = attention_panels(
        looked.pixels, looked.attention.words, looked.attention.maps.numpy()
    )
    np.testing.assert_array_equal(panels(tmp_path / "2_attention.png"), expected)


def test_a_caption_of_ones_own_is_read_as_in_training(attention, pictures, tmp_path):
    drawn = []
    for text in ("a Réd SQUARE", "a red square"):
        output = tmp_path / "new" / f"{len(drawn)}.png"
        status, out, _ = attention(pictures / "0.png", "--caption", text, "--output", output)
        assert status == 0
        assert "caption   a red square\n" in out
        drawn.append(panels(output))
    np.testing.assert_array_equal(*drawn)


def test_heads_get_rows_of_their_own(attention, pictures, tmp_path):
    heights = []
    for flags in ([], ["--heads"], ["--overwrite", "--heads", "--layer", 0]):
        output = tmp_path / f"{len(heights)}.png"
        own = ("--caption", "a red square", "--output", output)
        assert attention(pictures / "0.png", *own, *flags)[0] == 0
        heights.append(panels(output).shape[0])
    mean, heads, only_layer = heights
    assert mean < heads == only_layer


def test_a_file_is_replaced_only_when_asked_for(attention, pictures, tmp_path):
    output = tmp_path / "a.png"
    output.write_bytes(b"mine")
    status, _, err = attention(pictures / "0.png", "--output", output)
    assert (status, output.read_bytes()) == (2, b"mine")
    assert f"{output} exists; give --overwrite to replace it" in err
    assert attention(pictures / "0.png", "--output", output, "--overwrite")[0] == 0
    assert panels(output).ndim == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "nowhere.png is not a file; name an image file"),
        (["pictures"], "pictures is not a file"),
        (["notes.png"], "cannot read the image notes.png: it is not an image"),
        (["pictures/0.png", "--output", "a.jpg"], "a.jpg: expected a file name that ends in .png"),
        (["pictures/0.png", "--output", "b.png"], "b.png is a directory; name a file in it"),
        (["pictures/0.png", "--layer", "1"], "layer 1: the head has 1; give 0 to 0, or -1"),
        (["pictures/0.png", "--caption", "日本"], "no word of '日本' is in the model's vocabulary"),
        (["pictures/0.png", "--caption", ""], "no word of '' "),
        (["pictures/0.png", "--caption", "a red " * 20], "tokens; the head reads at most 12"),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_wrong_input_is_an_error_and_writes_nothing(
    attention, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.png").write_text("notes", encoding="utf-8")
    (tmp_path / "b.png").mkdir()
    before = sorted(tmp_path.iterdir())
    status, out, err = attention(*arguments)
    assert (status, out) == (2, "")
    assert re.search(message, err)
    assert sorted(tmp_path.iterdir()) == before


def test_a_limit_on_images_is_named_by_its_option(attention, pictures, tmp_path):
    output = ("--output", tmp_path / "a.png")
    status, _, err = attention(pictures / "2.png", *output, "--max-pixels", 48 * 40 - 1)
    assert status == 2
    assert "its 48 x 40 pixels are more than --max-pixels, 1919" in err


def test_a_model_of_another_task_has_no_attention(label_model, pictures, tmp_path, capsys):
    words = ["attention", str(pictures / "0.png"), "--output", str(tmp_path / "a.png")]
    assert main([*words, "--checkpoint", str(label_model)]) == 2
    assert "token_classification cannot caption" in capsys.readouterr().err


def test_attention_in_python_is_of_the_pixels_that_the_model_sees(model, pictures):
    tokens = model.captioner().tokenizer.encode("a red square")
    looked = model.attention(pictures / "1.png", tokens)
    assert looked.text == "a red square"
    assert looked.attention.words == ("a", "red", "square")
    pixels = model.pixels([pictures / "1.png"])
    np.testing.assert_array_equal(looked.pixels, pixels[0].permute(1, 2, 0).numpy())
    expected = model.captioner().attention(pixels[0], tokens)
    np.testing.assert_array_equal(looked.attention.maps.numpy(), expected.maps.numpy())
    with pytest.raises(UserError, match="layer 3"):
        model.attention(pictures / "1.png", tokens, layer=3)
