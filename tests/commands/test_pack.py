"""`virtex pack`: the same bytes each time, whatever ends it in between."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from virtex.cli import main
from virtex.data.dataset import ExampleDataset
from virtex.data.images import read_image
from virtex.data.shards.reader import open_shards
from virtex.data.shards.store import LocalStore
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.table_layout import TableLayout

pytestmark = [
    # Python 3.12 and later say that torch's threads and forked workers may not go together.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    # torch says so where a machine has fewer cores than the test has workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


@pytest.fixture
def coco(tmp_path):
    """A COCO tree of 10 noisy JPEG files, 60 x 90 pixels, for training."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(root / "train2017" / f"{i}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(10)],
        "annotations": [{"image_id": i, "caption": f"noise {i}"} for i in range(10)],
    }
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps(content))
    return root


def arguments(coco, output, *more):
    options = ("--split", "train", "--samples-per-shard", "3")
    return ["pack", "--from", "coco", str(coco), str(output), *options, *more]


def contents(output):
    """{name: bytes} of the split."""
    return {path.name: path.read_bytes() for path in (output / "train").iterdir()}


def opened(output):
    store = LocalStore(str(output / "train"))
    return open_shards(store, "captions", "error", cache_dir=output, window=100)


def test_a_split_is_packed_and_described(coco, tmp_path, capsys):
    assert main(arguments(coco, tmp_path / "a")) == 0
    told = capsys.readouterr().out
    assert "train: 10 samples in 4 shards, " in told
    for record in opened(tmp_path / "a"):
        expected = (coco / "train2017" / f"{record.image_id}.jpg").read_bytes()
        assert record.image.content() == expected
        assert record.captions == (f"noise {record.image_id}",)


def test_any_number_of_workers_writes_the_same_bytes(coco, tmp_path):
    for name, workers in (("a", "1"), ("b", "3")):
        assert main(arguments(coco, tmp_path / name, "--workers", workers)) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_packing_again_keeps_what_is_whole_and_mends_the_rest(coco, tmp_path, capsys):
    main(arguments(coco, tmp_path / "a"))
    before = contents(tmp_path / "a")
    split = tmp_path / "a" / "train"
    (split / "00000.index").unlink()
    (split / "00001.tar").unlink()
    damaged = bytearray(before["00002.tar"])
    damaged[600] ^= 1
    (split / "00002.tar").write_bytes(damaged)
    (split / "shards.json").unlink()
    (split / ".00003.tar.partial-1").write_bytes(b"from an earlier job")
    capsys.readouterr()
    assert main(arguments(coco, tmp_path / "a")) == 0
    assert "(1 shards kept, 0 samples skipped)" in capsys.readouterr().out
    assert contents(tmp_path / "a") == before


def test_a_killed_job_goes_on_to_the_same_bytes(coco, tmp_path):
    main(arguments(coco, tmp_path / "whole"))
    command = [sys.executable, "-m", "virtex", *arguments(coco, tmp_path / "a", "--workers", "2")]
    for shards in (0, 1, 2):
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("a/train/*.tar"))) < shards and time.monotonic() < deadline:
            time.sleep(0.001)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert main(arguments(coco, tmp_path / "a")) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_other_settings_or_data_are_refused(coco, tmp_path, capsys):
    main(arguments(coco, tmp_path / "a"))
    before = contents(tmp_path / "a")
    assert main(arguments(coco, tmp_path / "a", "--samples-per-shard", "4")) == 2
    assert "(samples_per_shard was 3, is 4); give another OUTPUT" in capsys.readouterr().err
    path = coco / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace("noise 4", "noise 44"))
    assert main(arguments(coco, tmp_path / "a")) == 2
    assert "packed from other data" in capsys.readouterr().err
    assert contents(tmp_path / "a") == before


def test_a_directory_of_something_else_is_refused(coco, tmp_path, capsys):
    (tmp_path / "a" / "train").mkdir(parents=True)
    (tmp_path / "a" / "train" / "notes").touch()
    assert main(arguments(coco, tmp_path / "a")) == 2
    assert "is not empty and holds no pack.json" in capsys.readouterr().err


def test_a_bad_picture_is_an_error_or_left_out_and_named(coco, tmp_path, capsys):
    path = coco / "train2017" / "4.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    for workers in ("1", "2"):
        assert main(arguments(coco, tmp_path / "a", "--workers", workers)) == 2
        assert f"error: cannot read the image {path}: " in capsys.readouterr().err
    assert main(arguments(coco, tmp_path / "b", "--skip-bad")) == 0
    told = capsys.readouterr()
    assert f"skipped cannot read the image {path}" in told.err
    assert "1 samples skipped" in told.out
    records = opened(tmp_path / "b")
    assert records.image_ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert records.report == ("00001.tar: 1 images cannot be read (keys 4.jpg)",)
    assert main(arguments(coco, tmp_path / "c", "--no-check")) == 0
    assert len(opened(tmp_path / "c")) == 10


def test_a_limit_on_images_is_named_by_its_option(coco, tmp_path, capsys):
    for option, value, reason in [
        ("--max-pixels", 5399, r"its 90 x 60 pixels are more than --max-pixels, 5399"),
        ("--max-image-mb", 1, "the file is larger than --max-image-mb, 1 MB"),
    ]:
        path = coco / "train2017" / "0.jpg"
        if option == "--max-image-mb":
            path.write_bytes(path.read_bytes() + bytes(1 << 20))
        assert main(arguments(coco, tmp_path / "a", option, str(value))) == 2
        assert f"error: cannot read the image {path}: {reason}" in capsys.readouterr().err
    # A limit is no setting of the shards: with another the job goes on.
    assert main(arguments(coco, tmp_path / "a", "--max-pixels", "5400")) == 0


def test_large_pictures_are_shrunk_upright_and_small_ones_copied(coco, tmp_path):
    path = coco / "train2017" / "1.jpg"
    with Image.open(path) as image:
        turned, exif = image.copy(), Image.Exif()
    exif[0x0112] = 6
    turned.save(path, exif=exif)
    small = coco / "train2017" / "2.jpg"
    Image.new("RGB", (30, 40)).save(small)
    assert main(arguments(coco, tmp_path / "a", "--short-side", "30", "--quality", "80")) == 0
    records = opened(tmp_path / "a")
    assert read_image(records[0].image).shape == (30, 45, 3)
    assert read_image(records[1].image).shape == (45, 30, 3)
    assert records[2].image.content() == small.read_bytes()
    full = read_image(coco / "train2017" / "1.jpg").astype(float)
    means = full[: 2 * 45, : 2 * 30].reshape(45, 2, 30, 2, 3).mean(axis=(1, 3))
    # Noise is hard to compress: a few levels off on average.
    assert abs(read_image(records[1].image) - means).mean() < 30


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--quality", "101"), "--quality 101: expected an integer from 1 to 100"),
        (("--labels", "categories"), "instances_train2017.json"),
        (("--split", "val"), "captions_val2017.json"),
    ],
)
def test_impossible_wishes_are_an_error(coco, tmp_path, capsys, more, message):
    assert main(arguments(coco, tmp_path / "a", *more)) == 2
    assert message in capsys.readouterr().err


def test_a_table_has_no_categories(tmp_path, capsys):
    names = [str(tmp_path), str(tmp_path / "a")]
    assert main(["pack", "--from", "table", *names, "--labels", "categories"]) == 2
    assert "--from table have only captions" in capsys.readouterr().err


def test_a_table_and_a_folder_are_packed(coco, tmp_path, capsys):
    pictures = coco / "train2017"
    (coco / "train.csv").write_text("image,caption\ntrain2017/1.jpg,one\ntrain2017/2.jpg,two\n")
    folder = tmp_path / "folder" / "train"
    folder.mkdir(parents=True)
    for number, caption in ((1, "one"), (2, "two")):
        (folder / f"{number}.jpg").write_bytes((pictures / f"{number}.jpg").read_bytes())
        (folder / f"{number}.txt").write_text(caption)
    for kind, source in (("table", coco), ("folder", tmp_path / "folder")):
        output = tmp_path / f"of_{kind}"
        words = ["--from", kind, str(source), str(output), "--split", "train"]
        assert main(["pack", *words]) == 0, capsys.readouterr().err
        records = opened(output)
        assert sorted(record.captions for record in records) == [("one",), ("two",)]
        for record in records:
            number = {"one": 1, "two": 2}[record.captions[0]]
            assert record.image.content() == (pictures / f"{number}.jpg").read_bytes()


def test_several_images_of_one_text_are_packed_as_they_are_trained_on(tmp_path):
    rows = ["image,caption"]
    for number in range(5):
        names = [f"{number}{letter}.png" for letter in "abc"[: 1 + number % 3]]
        for place, name in enumerate(names):
            Image.new("RGB", (8, 8), (40 * number, 80 * place, 0)).save(tmp_path / name)
        rows.append(f"{'|'.join(names)},views of {number}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    words = ("--split", "train", "--image-separator", "|", "--workers", "1", "--quiet")
    shards = ("--samples-per-shard", "2")
    out = tmp_path / "out"
    assert main(["pack", "--from", "table", str(tmp_path), str(out), *words, *shards]) == 0
    table = TableCaptions(str(tmp_path), "train", layout=TableLayout(image_separator="|"))
    packed = opened(out)
    assert np.array_equal(packed.content_rows, table.content_rows)

    def encode(record, augmented, _):
        return {"captions": record.captions, "pixels": augmented.image.tobytes()}

    def drawn(records):
        data = ExampleDataset(records, (), encode, seed=0)
        return [data[epoch, place] for epoch in range(20) for place in range(5)]

    assert drawn(packed) == drawn(table)
    assert len({example["pixels"] for example in drawn(packed)}) == 9
    # The indexes are made again from the tar files alone.
    indexes = {path.name: path.read_bytes() for path in (out / "train").glob("*.index")}
    for path in out.glob("train/*.index"):
        path.unlink()
    (out / "train" / "shards.json").unlink()
    assert drawn(opened(out)) == drawn(table)
    assert {path.name: path.read_bytes() for path in (out / "train").glob("*.index")} == indexes


def test_a_mistake_in_any_split_is_found_before_the_first_is_packed(coco, tmp_path, capsys):
    assert main(["pack", "--from", "coco", str(coco), str(tmp_path / "out")]) == 2
    assert "captions_val2017.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
