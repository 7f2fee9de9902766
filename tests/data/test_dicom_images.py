import sys

import numpy as np
import pytest
from tests.data.dicoms import SYNTAXES, dicom

from virtex.data.dicom_images import apply_window, is_dicom
from virtex.data.images import BadImage, decode, decode_raster, read_image
from virtex.data.pixel_values import PixelSettings
from virtex.errors import UserError

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("gdcm")
pytest.importorskip("imagecodecs")

RNG = np.random.default_rng(0)
GREY = (
    np.add.outer(np.arange(40) * 60, np.arange(30) * 50) + RNG.integers(0, 200, (40, 30))
).astype(np.uint16)
VALUES = PixelSettings(window="none")


def stored(data):
    return decode_raster(data, "a.dcm", pixels=VALUES).values


@pytest.mark.parametrize("syntax", [name for name in SYNTAXES if name != "JPEG baseline"])
def test_every_lossless_transfer_syntax_gives_its_values(syntax):
    np.testing.assert_array_equal(stored(dicom(GREY, syntax=syntax))[:, :, 0], GREY)
    eight = (GREY >> 4).astype(np.uint8)
    np.testing.assert_array_equal(stored(dicom(eight, syntax=syntax, bits=8))[:, :, 0], eight)
    if not syntax.startswith("JPEG lossless"):  # whose encoder here takes only grey
        colour = np.stack([eight, eight[::-1], eight[:, ::-1]], axis=-1)
        np.testing.assert_array_equal(decode(dicom(colour, syntax=syntax, bits=8), None), colour)


def test_jpeg_baseline_is_read_as_colour():
    smooth = np.linspace(0, 255, 40)[:, None, None] * [0, 1, 1] + np.linspace(0, 255, 32)[
        :, None
    ] * [1, 0, 0]
    data = dicom(
        smooth.astype(np.uint8),
        syntax="JPEG baseline",
        bits=8,
        PhotometricInterpretation="YBR_FULL_422",
    )
    np.testing.assert_allclose(decode(data, None), smooth, atol=8)


def test_twelve_bits_are_mapped_by_the_bits_stored_or_by_a_range():
    image = decode(dicom(GREY), None)
    np.testing.assert_array_equal(image, np.repeat((GREY >> 4)[:, :, None], 3, axis=2))
    image = decode(dicom(GREY), None, pixels=PixelSettings(((0, 1023),)))
    np.testing.assert_array_equal(image[:, :, 1], np.minimum(GREY >> 2, 255))


def by_the_standard(value, center, width):
    """PS3.3, C.11.2.1.2.1, with an output from 0 to 255.999."""
    if value <= center - 0.5 - (width - 1) / 2:
        return 0
    if value > center - 0.5 + (width - 1) / 2:
        return 255
    return min(int(((value - (center - 0.5)) / (width - 1) + 0.5) * 256), 255)


@pytest.mark.parametrize("inverted", [False, True])
def test_values_are_rescaled_windowed_and_inverted_in_this_order(inverted):
    data = dicom(
        GREY,
        RescaleSlope=2,
        RescaleIntercept=-1024,
        WindowCenter=[40, 700],
        WindowWidth=[400, 2000],
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )
    units = GREY.astype(int) * 2 - 1024
    for settings, window in (
        (PixelSettings(), (40, 400)),
        (PixelSettings(window=(700, 2000)), (700, 2000)),
    ):
        expected = np.vectorize(lambda value: by_the_standard(value, *window))(units)  # noqa: B023
        expected = 255 - expected if inverted else expected
        np.testing.assert_array_equal(decode(data, None, pixels=settings)[:, :, 0], expected)
    raster = decode_raster(data, "a.dcm", pixels=VALUES)
    np.testing.assert_array_equal(raster.values[:, :, 0], units)
    assert raster.declared == (-1024, 2 * 4095 - 1024)
    assert raster.inverted == inverted


def test_windows_have_the_functions_of_the_standard():
    values = np.array([[-1000.0, 30, 40, 50, 1000]])
    exact = apply_window(values, (40, 40), "LINEAR_EXACT")
    assert exact.tolist() == [[0, 64, 128, 192, 255]]
    sigmoid = apply_window(values, (40, 40), "SIGMOID")
    expected = 256 / (1 + np.exp(-4 * (values - 40) / 40))
    assert sigmoid.tolist() == np.minimum(np.floor(expected), 255).tolist()
    for window, function in (((40, 0.5), "LINEAR"), ((40, 0), "SIGMOID"), ((40, 9), "CUBIC")):
        with pytest.raises(ValueError, match=r"its window has"):
            apply_window(values, window, function)


def test_a_lookup_table_of_the_file_replaces_the_window():
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 8]
    table.LUTData = [255 - value // 16 for value in range(4096)]
    table["LUTData"].VR = "US"
    data = dicom(GREY, VOILUTSequence=[table])
    np.testing.assert_array_equal(decode(data, None)[:, :, 0], 255 - GREY // 16)


@pytest.mark.parametrize("packed", [False, True])
def test_a_modality_table_gives_the_values_of_the_device(packed):
    numbers = RNG.integers(0, 65536, 4000).astype(np.uint16)
    table = pydicom.Dataset()
    table.LUTDescriptor = [4000, 10, 16]
    table.LUTData = numbers.tobytes() if packed else numbers.tolist()
    table["LUTData"].VR = "OW" if packed else "US"
    data = dicom(GREY, ModalityLUTSequence=[table])
    expected = numbers[np.clip(GREY.astype(int) - 10, 0, 3999)]
    np.testing.assert_array_equal(stored(data)[:, :, 0], expected)


def test_signed_values_have_a_declared_range():
    values = GREY.astype(np.int16) - 2048
    raster = decode_raster(dicom(values), "a.dcm")
    np.testing.assert_array_equal(raster.values[:, :, 0], values)
    assert raster.declared == (-2048, 2047)
    np.testing.assert_array_equal(decode(dicom(values), None)[:, :, 0], GREY >> 4)


def test_one_of_several_frames_is_chosen_and_reported():
    frames = np.stack([GREY, GREY[::-1], GREY[:, ::-1], GREY // 2])
    data = dicom(frames, syntax="RLE")
    with pytest.raises(ValueError, match=r"it has 4 frames; choose one with DATA.DICOM_FRAME"):
        decode(data, None)
    for frame, index in (("first", 0), ("middle", 2)):
        raster = decode_raster(data, "a.dcm", pixels=PixelSettings(window="none", frame=frame))
        np.testing.assert_array_equal(raster.values[:, :, 0], frames[index])
        assert raster.notes == (
            f"have several frames, of which the {frame} one is used (DATA.DICOM_FRAME)",
        )


def test_windows_of_single_frames_are_used():
    def group(center):
        window, item = pydicom.Dataset(), pydicom.Dataset()
        window.WindowCenter, window.WindowWidth = center, 101
        item.FrameVOILUTSequence = [window]
        return item

    frames = np.stack([GREY, GREY])
    data = dicom(frames, PerFrameFunctionalGroupsSequence=[group(100), group(3000)])
    image = decode(data, None, pixels=PixelSettings(frame="middle"))
    expected = np.vectorize(lambda value: by_the_standard(value, 3000, 101))(GREY)
    np.testing.assert_array_equal(image[:, :, 0], expected)


def test_a_palette_gives_its_colours():
    tables = {}
    for name in ("Red", "Green", "Blue"):
        colours = RNG.integers(0, 65536, 256).astype(np.uint16)
        tables[name] = colours
    attributes = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, colours in tables.items():
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        attributes[f"{name}PaletteColorLookupTableData"] = colours.tobytes()
    indices = (GREY >> 4).astype(np.uint8)
    image = decode(dicom(indices, bits=8, **attributes), None)
    expected = np.stack([tables[name][indices] >> 8 for name in tables], axis=-1)
    np.testing.assert_array_equal(image, expected)


def test_a_file_without_preamble_is_read():
    data = dicom(GREY, syntax="implicit little endian")
    start = data.index(b"\x08\x00\x16\x00")
    assert is_dicom(data[start:])
    np.testing.assert_array_equal(stored(data[start:])[:, :, 0], GREY)


@pytest.mark.parametrize("syntax", ["explicit little endian", "RLE", "JPEG-LS", "JPEG 2000"])
def test_a_truncated_file_is_an_error(tmp_path, syntax):
    data = dicom(GREY, syntax=syntax)
    path = tmp_path / "cut.dcm"
    for cut in (140, 400, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:cut])
        with pytest.raises(BadImage, match=r"cut\.dcm"):
            read_image(path)
    if syntax.startswith("JPEG"):
        path.write_bytes(dicom(GREY, syntax=syntax, cut=900))
        with pytest.raises(BadImage, match=r"its pixel data .* are damaged"):
            read_image(path)


@pytest.mark.parametrize(("package", "syntax"), [("pydicom", "RLE"), ("gdcm", "JPEG-LS")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, syntax):
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom(GREY, syntax=syntax))
    if package == "gdcm":
        monkeypatch.setitem(sys.modules, "virtex.data.dicom_codecs", None)
        monkeypatch.delattr("virtex.data.dicom_codecs", raising=False)
        decoder = pydicom.pixels.get_decoder(SYNTAXES[syntax])
        monkeypatch.setattr(decoder, "_available", {})
        monkeypatch.setattr(decoder, "_unavailable", {"gdcm": ("gdcm>=3.0.10",)})
    else:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"a\.dcm: .*pretraining\[dicom\]") as caught:
        read_image(path)
    assert not isinstance(caught.value, BadImage)


def test_damage_is_an_image_or_a_bad_image(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.dcm"
    names = [name for name in SYNTAXES if name != "JPEG baseline"]
    seeds = [dicom(GREY, syntax=name, RescaleSlope=2, RescaleIntercept=1) for name in names]
    for trial in range(160):
        data = bytearray(seeds[trial % len(seeds)])
        for _ in range(3):
            data[rng.integers(132, len(data) if trial % 2 else 600)] = rng.integers(256)
        path.write_bytes(data)
        try:
            image = read_image(path)
        except BadImage as error:
            assert error.reason  # noqa: PT017 - either outcome is right
        else:
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
