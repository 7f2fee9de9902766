"""The settings of a first run, from what the data are like."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.doctor.data_sets import files_of, write_images, write_reports, write_table

from virtex.build.model import load_config
from virtex.config import yaml12
from virtex.doctor.detected import Choice, nested
from virtex.doctor.layout import detect_data
from virtex.doctor.measure import MemoryFit
from virtex.doctor.proposal import PRESET, propose
from virtex.doctor.run_file import run_file
from virtex.doctor.scale import Machine
from virtex.doctor.step_trial import StepCost
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer

CPU = Machine(0, 2)


def proposed(root, machine=CPU, measure=None, **given):
    given = {f"DATA.{key}": value for key, value in given.items()}
    found = detect_data(str(root), given)
    return propose(found, Path("/nowhere/v.model"), machine, measure)


def settings(proposal):
    return {choice.key: choice.value for choice in proposal.choices}


def write_captions(root, captions, names=None):
    names = names or write_images(root, len(captions))
    write_table(root / "t.csv", [("image", "caption"), *zip(names, captions, strict=True)])


def test_what_cannot_be_used_is_skipped_and_said_loudly(tmp_path):
    bad = write_reports(tmp_path)
    before = files_of(tmp_path)
    proposal = proposed(tmp_path)
    assert files_of(tmp_path) == before
    found = settings(proposal)
    assert found["DATA.ON_BAD_IMAGE"] == "skip"
    notes = " ".join(proposal.notes)
    assert "2 image files" in notes  # one missing and one empty
    assert bad[2] in notes
    assert "captions are blank" in notes
    assert "more than 8 bits" in notes
    reason = next(each.reason for each in proposal.choices if each.key == "DATA.ON_BAD_IMAGE")
    assert bad[2] in reason


def test_data_without_defects_are_not_skipped(tmp_path):
    write_captions(tmp_path, ["a dog runs on the grass"] * 40)
    assert settings(proposed(tmp_path))["DATA.ON_BAD_IMAGE"] == "error"


@pytest.mark.parametrize(
    ("caption", "words", "flips"),
    [
        ("a dog runs on the grass to the left", None, True),
        ("Ein Hund läuft auf der Wiese nach links", ["german"], True),
        ("Een hond rent op het gras naar links", None, False),
        ("Verschattung im linken Oberfeld, kein Pleuraerguss", None, False),
        ("赤い車が左に止まっている。", None, False),
    ],
)
def test_images_are_mirrored_where_the_words_for_the_sides_are_known(
    tmp_path, caption, words, flips
):
    write_captions(tmp_path, [f"{caption} {index}" for index in range(40)])
    found = settings(proposed(tmp_path))
    assert found.get("DATA.MIRROR_WORDS") == words
    transforms = found.get("DATA.IMAGE_TRANSFORM_TRAIN")
    assert (transforms is None) is flips
    assert transforms is None or not any("flip" in each for each in transforms)


@pytest.mark.parametrize(
    ("caption", "normalization"),
    [
        ("Ein Hund läuft auf der Wiese", "nfkc_lower"),
        ("赤い車が左に止まっている。", "nfc"),
        ("an area of 12 m² and 14 m² on the map", "nfc"),
    ],
)
def test_all_letters_survive_the_vocabulary(tmp_path, caption, normalization):
    write_captions(tmp_path, [caption] * 40)
    proposal = proposed(tmp_path)
    assert settings(proposal)["DATA.TEXT_NORMALIZATION"] == normalization
    tokenizer = Tokenizer.from_bytes(proposal.vocabulary)
    decoded = tokenizer.decode(tokenizer.encode(tokenizer.normalize(caption)))
    assert decoded == (caption.lower() if normalization == "nfkc_lower" else caption)


def test_captions_are_cut_for_one_in_a_hundred_at_most(tmp_path):
    words = [f"w{index % 7}x" for index in range(400)]
    captions = [" ".join(words[: 1 + index % 30]) for index in range(200)]
    write_captions(tmp_path, captions)
    proposal = proposed(tmp_path)
    limit = settings(proposal)["DATA.MAX_CAPTION_LENGTH"]
    tokenizer = Tokenizer.from_bytes(proposal.vocabulary)
    lengths = [len(tokenizer.encode(tokenizer.normalize(text))) + 2 for text in captions]
    assert np.mean(np.array(lengths) > limit) <= 0.02  # some are drawn for validation
    assert limit <= max(lengths)
    assert settings(proposal)["MODEL.DECODER.MAX_DECODING_STEPS"] == limit


def test_very_long_captions_are_bounded_and_replaced_by_sentences(tmp_path):
    sentence = " ".join(chr(97 + index % 26) * 2 for index in range(70)) + "."
    write_captions(tmp_path, [f"{sentence} {sentence} {index}." for index in range(30)])
    found = settings(proposed(tmp_path))
    assert found["DATA.MAX_CAPTION_LENGTH"] == 128
    assert found["DATA.LONG_CAPTIONS"] == "sentences"


def test_every_band_is_used_where_none_is_declared_as_rgb(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    noise = np.random.default_rng(0)
    names = [f"{index}.tif" for index in range(20)]
    for name in names:
        tifffile.imwrite(
            tmp_path / name,
            noise.integers(0, 999, (5, 40, 48), np.uint16),
            photometric="minisblack",
            planarconfig="separate",
        )
    write_captions(tmp_path, ["a dog runs on the grass"] * 20, names)
    found = settings(proposed(tmp_path))
    assert found["DATA.BANDS"] == [1, 2, 3, 4, 5]
    assert "horizontal_flip" in found["DATA.IMAGE_TRANSFORM_TRAIN"]


def test_a_side_of_few_images_is_not_empty(tmp_path):
    for number in range(2, 9):
        root = tmp_path / str(number)
        write_captions(root, ["a dog runs on the grass"] * number)
        proposal = proposed(root)
        assert proposal.training >= 1
        assert proposal.validation >= 1
        assert settings(proposal)["OPTIM.BATCH_SIZE"] <= proposal.training


def test_shards_are_only_read_and_the_share_follows_their_images(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, root = tmp_path / "images", tmp_path / "shards"
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as shard:
        for name in write_images(images, 40):
            text = (images / name).with_suffix(".txt")
            text.write_text("a dog runs on the grass")
            for member in (images / name, text):
                shard.add(member, member.name)
    before = files_of(root)
    proposal = proposed(root)
    assert files_of(root) == before
    assert settings(proposal)["DATA.VAL_SHARE"] == 0.1
    assert proposal.training + proposal.validation == 40


def test_the_batch_fits_the_memory(tmp_path):
    write_captions(tmp_path, ["a dog runs on the grass"] * 200)
    asked = []

    def measure(config):
        asked.append(config)
        costs = (StepCost(4, 0.1, 10**9), StepCost(16, 0.2, 4 * 10**9))
        return MemoryFit("cpu", costs, free=2 * 10**9, largest=5)

    proposal = proposed(tmp_path, measure=measure)
    found = settings(proposal)
    assert found["OPTIM.BATCH_SIZE"] == 4
    assert proposal.seconds == pytest.approx(proposal.iterations * 4 / 80)
    assert asked[0].data.image_crop_size == found["DATA.IMAGE_CROP_SIZE"]
    assert asked[0].data.vocab_size == Tokenizer.from_bytes(proposal.vocabulary).vocab_size
    assert settings(proposed(tmp_path, Machine(2, 8), measure))["OPTIM.BATCH_SIZE"] == 8
    with pytest.raises(UserError, match="fit the memory"):
        proposed(tmp_path, measure=lambda _: None)


def test_the_file_loads_as_the_settings_and_is_the_same_each_time(tmp_path):
    write_reports(tmp_path)
    files = set()
    for machine in (CPU, CPU, Machine(2, 8)):
        proposal = proposed(tmp_path, machine)
        text = run_file(proposal.choices, PRESET, "Odd: # heading\twith\nlines")
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        data = load_config(path).model_dump(mode="json", by_alias=True)
        assert_within(nested(settings(proposal)), data)
        assert all(line.isprintable() and len(line) < 160 for line in text.splitlines())
        assert all(choice.reason for choice in proposal.choices)
        files.add((text, proposal.vocabulary))
    assert len(files) == 2


_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")  # as settings may have
_values = st.recursive(
    st.text(_CHARACTERS, max_size=20) | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(st.tuples(_values, st.text(min_size=1)), min_size=1, max_size=4))
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_value_and_any_reason_can_be_written(pairs):
    keys = [f"{'AB'[index % 2]}.C.D{index}" for index in range(len(pairs))]
    choices = [Choice(key, value, reason) for key, (value, reason) in zip(keys, pairs, strict=True)]
    parsed = yaml12.parse(run_file(choices, "x", "y"))
    assert parsed == {"_BASE_": "x"} | nested({each.key: each.value for each in choices})


def assert_within(values, whole):
    for key, value in values.items():
        if isinstance(value, dict):
            assert_within(value, whole[key])
        else:
            assert whole[key] == value


def test_captions_that_cannot_be_read_are_an_error(tmp_path):
    write_captions(tmp_path, ["a dog runs on the grass"] * 3)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no image can be read"):
        proposed(tmp_path)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((40, 40, 3), np.uint8))
    assert settings(proposed(tmp_path))["DATA.ON_BAD_IMAGE"] == "skip"
