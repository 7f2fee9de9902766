"""`virtex caption` as a user calls it."""

import csv
import io
import json
import os
import re
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from tests.commands.conftest import picture

from virtex.cli import main

BEAMS = ("--decoder", "beam_search")
SAMPLES = ("--decoder", "nucleus_sampling", "--seed", "7", "--nucleus-size", "1.0")
DECODERS = pytest.mark.parametrize("decoder", [BEAMS, SAMPLES], ids=["beams", "samples"])


def words(model, *arguments):
    return ["caption", *map(str, arguments), "--checkpoint", str(model)]


@pytest.fixture
def caption(captioning_model, capsys):
    """A function that gives the exit status and what was printed to stdout and stderr."""

    def run(*arguments):
        status = main(words(captioning_model, *arguments))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def captions(caption):
    """A function that gives the record of each path, by its name, of a run without error."""

    def run(*arguments):
        status, out, _ = caption(*arguments, "--format", "jsonl")
        assert status == 0
        return records(out)

    return run


def records(lines):
    parsed = [json.loads(line) for line in lines.splitlines()]
    named = {os.path.basename(record["path"]): record for record in parsed}  # noqa: PTH119
    assert len(named) == len(parsed), "a path was written twice"
    return named


def texts(record):
    return [caption["text"] for caption in record["captions"]]


def assert_same_captions(one, other):
    assert texts(one) == texts(other)
    scores = [caption["score"] for caption in other["captions"]]
    # Float32 products of other shapes, summed in another order.
    assert [caption["score"] for caption in one["captions"]] == pytest.approx(scores, rel=1e-4)


def spoil(directory):
    """Put a text file, a truncated JPEG and an empty directory into a directory."""
    (directory / "notes.txt").write_text("Pictures of the sea", encoding="utf-8")
    Image.fromarray(picture(9)).resize((200, 200)).save(directory / "cut.jpg")
    os.truncate(directory / "cut.jpg", 2000)
    (directory.parent / "empty").mkdir()
    return [directory, directory.parent / "empty"]


def test_every_form_tells_the_same_in_the_order_of_the_files(caption, pictures):
    plain = [caption(pictures, "--format", form)[1] for form in ("console", "jsonl", "json")]
    console, lines, whole = plain
    from_lines = [json.loads(line) for line in lines.splitlines()]
    assert json.loads(whole) == from_lines
    assert [record["path"] for record in from_lines] == [
        str(path) for path in sorted(pictures.iterdir())
    ]
    for line, record in zip(console.splitlines(), from_lines, strict=True):
        (best,) = record["captions"]
        assert line.startswith(f"{record['path']}  ")
        assert line.endswith(f" {best['score']:.2f}  {best['text']}")


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_a_table_has_a_row_for_each_caption_and_each_error(caption, pictures, form, delimiter):
    spoil(pictures)
    flags = ("--top", 2, "--format")
    status, table, _ = caption(pictures, *flags, form)
    assert status == 1
    expected = []
    for record in records(caption(pictures, *flags, "jsonl")[1]).values():
        for caption_ in record.get("captions", []):
            score = f"{caption_['score']:.4f}"
            expected.append([record["path"], caption_["text"], score, ""])
        if "error" in record:
            expected.append([record["path"], "", "", record["error"]])
    rows = list(csv.reader(io.StringIO(table), delimiter=delimiter))
    assert rows == [["path", "caption", "score", "error"], *expected]
    assert len(rows) == 1 + 2 * 5 + 2


@pytest.mark.parametrize(
    "name", ["new/captions.json", "captions.jsonl", "captions.txt", "captions.CSV", "captions.tsv"]
)
def test_a_file_gets_what_standard_output_would(caption, pictures, tmp_path, name):
    output = tmp_path / name
    form = {".txt": "console"}.get(output.suffix, output.suffix.lower().removeprefix("."))
    status, out, err = caption(pictures, "--output", output)
    assert (status, out) == (0, "")
    assert f"captions of 5 images written to {output}" in err
    assert output.read_text(encoding="utf-8") == caption(pictures, "--format", form)[1]


@DECODERS
def test_the_top_captions_come_best_first(caption, captions, pictures, decoder):
    three = captions(pictures, *decoder, "--top", 3)
    for record in three.values():
        scores = [caption["score"] for caption in record["captions"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    console = caption(pictures, *decoder, "--top", 3)[1].splitlines()
    assert [line for line in console if not line.startswith(" ")] == [
        record["path"] for record in three.values()
    ]
    shown = [re.fullmatch(r" +(-\d+\.\d\d)  (.*)", line) for line in console]
    assert [match[2] for match in shown if match] == [
        text or "(no words)" for record in three.values() for text in texts(record)
    ]
    if decoder == BEAMS:
        one = captions(pictures, *decoder)
        assert [texts(record) for record in one.values()] == [
            texts(record)[:1] for record in three.values()
        ]


def test_a_caption_is_no_longer_than_asked_for(captions, pictures):
    longer, shorter = (captions(pictures, "--max-length", length) for length in (7, 1))
    assert len(max(texts(record)[0] for record in shorter.values())) <= 4  # of one piece
    assert min(len(texts(record)[0]) for record in longer.values()) > 4


def test_samples_depend_on_seed_and_picture_alone(captions, pictures, tmp_path):
    first = captions(pictures, *SAMPLES, "--top", 2)
    assert captions(pictures, *SAMPLES, "--top", 2) == first
    shutil.copy(pictures / "3.png", tmp_path / "another name.png")
    again = captions(
        tmp_path / "another name.png", pictures, *SAMPLES, "--top", 2, "--batch-size", 2
    )
    assert_same_captions(again.pop("another name.png"), first["3.png"])
    assert again.keys() == first.keys()
    for name, record in first.items():
        assert_same_captions(again[name], record)
    other = captions(pictures, *SAMPLES[:2], "--seed", 8, "--top", 2)
    assert all(texts(other[name]) != texts(record) for name, record in first.items())


@DECODERS
def test_a_picture_is_captioned_as_it_is_meant_to_be_seen(captions, tmp_path, decoder):
    image = Image.fromarray(picture(1))
    image.save(tmp_path / "upright.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    image.save(tmp_path / "alpha.png")
    white = Image.new("RGBA", image.size, "white")
    Image.alpha_composite(white, image).convert("RGB").save(tmp_path / "on_white.png")
    grey = np.asarray(image.convert("L"))
    Image.fromarray(grey).save(tmp_path / "grey8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    found = captions(tmp_path, *decoder)
    for one, other in [("turned", "upright"), ("alpha", "on_white"), ("grey16", "grey8")]:
        assert_same_captions(found[f"{one}.png"], found[f"{other}.png"])
    assert len({tuple(texts(record)) for record in found.values()}) > 1


def test_a_limit_on_images_is_named_by_its_option(caption, pictures):
    status, _, err = caption(pictures / "0.png", "--max-pixels", 48 * 40 - 1)
    assert status == 1
    assert "its 48 x 40 pixels are more than --max-pixels, 1919" in err
    status, _, _ = caption(pictures / "0.png", "--max-pixels", 48 * 40)
    assert status == 0


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_files_that_give_no_picture_are_named_and_the_others_captioned(
    caption, captions, pictures, batch_size
):
    expected = captions(pictures)
    paths = spoil(pictures)
    flags = ("--format", "jsonl", "--batch-size", batch_size)
    status, out, err = caption(*paths, *flags)
    assert status == 1
    found = records(out)
    assert found.keys() == {*expected, "notes.txt", "cut.jpg", "empty"}
    for name, record in expected.items():
        assert_same_captions(found[name], record)
    for path, reason in [
        (pictures / "notes.txt", "is not an image"),
        (pictures / "cut.jpg", ""),
        (paths[1], "holds no files"),
    ]:
        error = found[path.name]["error"]
        assert reason in error
        assert f"skipped {path}: {error}\n" in err
    assert err.endswith("3 of 8 could not be captioned; see above\n")
    assert "notes" not in caption(*paths)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pictures", "nowhere"], "nowhere: No such file or directory; name image files"),
        (["empty"], "nothing to caption: empty: the directory holds no files"),
        (["empty", "empty/also"], "nothing to caption: empty: .*; empty/also: "),
        (["pictures", "--output", "old.json"], "old.json exists; remove it, or choose another"),
        (["pictures", "--output", "old.jsonl"], "old.jsonl exists; give --continue .* or choose"),
        (["pictures", "--output", "pictures"], "pictures is a directory; name a file in it"),
        (["pictures", "--output", "k.xlsx"], r"k.xlsx: .* ends in \.txt, \.jsonl, .*--format"),
        (["pictures", "--continue"], "requires results in jsonl format; name their file"),
        (["pictures", "--continue", "--output", "old.json"], "requires results in jsonl format"),
        (["pictures", "--continue", "--output", "old.jsonl"], "old.jsonl is not a result"),
        (["pictures", "--continue", "--output", "mine.jsonl"], "line 2 of mine.jsonl is not"),
        (
            ["pictures", "--device", "abacus"],
            "--device abacus is not available; the devices of this machine: cpu",
        ),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_wrong_input_is_refused_before_the_model_is_loaded(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty/also").mkdir(parents=True)
    contents = {
        "old.json": "[]\n",
        "old.jsonl": "my notes",
        "mine.jsonl": '{"path": "a.png", "captions": []}\n{"path": 3, "captions": []}\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert main(words("no_model.pth", *arguments)) == 2
    assert re.search(message, capsys.readouterr().err)
    for name, content in contents.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--top", 4], "--top 4: a search with a beam size of 3 .* --beam-size 4, .* at most 3"),
        (["--top", 2, "--beam-size", 1], "--top 2: .* beam size of 1 "),
        (["--seed", 1], "--seed 1 is an option of nucleus_sampling, .* beam_search; give --dec"),
        (["--nucleus-size", 0.5], r"--nucleus-size 0\.5 is an option of nucleus_sampling"),
        ([*SAMPLES, "--beam-size", 2], "--beam-size 2 is an option of beam_search"),
        (["--decoder", "nucleus_sampling", "--nucleus-size", 1.5], r"a nucleus size of 1\.5 "),
        (["--max-length", 13], "at most 13 tokens are not possible; the head reads 1 to 12"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_pictures_are_read(
    caption, pictures, flags, message
):
    status, out, err = caption(*spoil(pictures), *flags)
    assert (status, out) == (2, "")
    assert re.search(message, err)
    assert "skipped" not in err


def test_a_model_of_another_task_is_refused_before_pictures_are_read(label_model, pictures, capsys):
    assert main(words(label_model, *spoil(pictures))) == 2
    err = capsys.readouterr().err
    assert "token_classification cannot caption" in err
    assert "skipped" not in err


@pytest.mark.parametrize(
    "cut", ["nothing", "in its first line", "in the middle", "at a line's end"]
)
def test_interrupted_and_continued_equals_uninterrupted(caption, pictures, tmp_path, cut):
    paths = spoil(pictures)
    output = tmp_path / "captions.jsonl"
    flags = (*paths, "--output", output)
    assert caption(*flags, "--batch-size", 2)[0] == 1
    whole = output.read_bytes()
    third_line = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    places = {"nothing": 0, "in its first line": 5, "in the middle": third_line + 30}
    os.truncate(output, places.get(cut, third_line))
    status, _, err = caption(*flags, "--continue")
    assert (status, "3 of " in err) == (1, True)
    one, other = records(output.read_text(encoding="utf-8")), records(whole.decode())
    assert one.keys() == other.keys()
    for name, record in other.items():
        if "error" in record:
            assert one[name] == record
        else:
            assert_same_captions(one[name], record)


def test_captions_that_are_there_are_kept_and_errors_tried_again(caption, pictures):
    output = pictures / "captions.jsonl"  # among the pictures, but none
    spoil(pictures)
    assert caption(pictures, "--output", output)[0] == 1
    before = records(output.read_text(encoding="utf-8"))
    shutil.copy(pictures / "0.png", pictures / "notes.txt")
    shutil.copy(pictures / "1.png", pictures / "0.png")  # not looked at again
    (pictures / "cut.jpg").unlink()
    assert caption(pictures, "--output", output, "--continue")[0] == 0
    after = records(output.read_text(encoding="utf-8"))
    assert_same_captions(after.pop("notes.txt"), before["0.png"])
    # The error of a file that is no longer asked for stays.
    assert after == {name: record for name, record in before.items() if name != "notes.txt"}
    (pictures / "captions.jsonl").rename(pictures.parent / "all.jsonl")
    arguments = (pictures, "--output", pictures.parent / "all.jsonl", "--continue")
    assert main(words("no_model.pth", *arguments)) == 0, "all is done, so no model is needed"


def test_file_names_that_are_no_text_are_escaped(caption, pictures):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (pictures / "0.png").rename(pictures / name)
    except OSError:
        pytest.skip("this file system holds text alone")
    out = caption(pictures, "--format", "jsonl")[1]
    assert name in records(out)
    assert f"{pictures}/caf\\udce9.png  " in caption(pictures)[1]


def test_a_full_disk_is_told(caption, pictures):
    if not os.path.exists("/dev/full"):  # noqa: PTH110 - a device, not a file of ours
        pytest.skip("there is no full device here")
    status, _, err = caption(pictures, "--output", "/dev/full")
    assert status == 1
    assert "cannot write more to /dev/full: No space left on device; free some space" in err


@pytest.fixture
def many(tmp_path, pictures):
    """A directory of more pictures than are captioned before a test ends."""
    directory = tmp_path / "many"
    directory.mkdir()
    for number in range(3000):
        (directory / f"{number}.png").symlink_to(pictures / f"{number % 5}.png")
    return directory


@pytest.mark.parametrize("form", ["console", "jsonl", "json"])
def test_a_reader_that_goes_away_ends_the_run_quietly(caption, many, monkeypatch, form):
    """As `| head` does: nothing is said then, nor when Python flushes its output at the end."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        status, _, err = caption(many, "--format", form, "--batch-size", 8)
    assert (status, err) == (0, "")


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_ctrl_c_leaves_whole_results(caption, many, tmp_path, form):
    output = tmp_path / f"captions.{form}"

    ended = threading.Event()

    def interrupt():
        while not ended.wait(0.01):
            if output.exists() and output.stat().st_size:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    status, _, err = caption(many, "--output", output, "--batch-size", 8)
    ended.set()
    thread.join()
    assert (status, err) == (130, "interrupted\n")
    content = output.read_text(encoding="utf-8")
    found = json.loads(content) if form == "json" else list(records(content).values())
    assert 0 < len(found) < 3000
    assert all(record["captions"] for record in found)
