"""One rule for all that images and captions are read from: read it, or count and name it, or
refuse it with its place and a remedy; and never lose an image without a word."""

import json
import re

import pyarrow
import pytest
from pyarrow import parquet
from tests.data.packing import opened
from tests.data.tars import tar

from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.image_list import similar_file
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.text_folder import TextFolder
from virtex.errors import UserError


def as_bytes(text):
    return text if isinstance(text, bytes) else (text or "").encode()


def as_json(text):
    """A JSON string with the bytes as they are."""
    if isinstance(text, bytes):
        return b'"' + text + b'"'
    return json.dumps(text).encode()


def write_coco(root, samples):
    images = [{"id": n, "file_name": name} for n, (name, _) in enumerate(samples)]
    captions = (
        b'{"image_id": %d, "caption": %s}' % (n, as_json(text))
        for n, (_, text) in enumerate(samples)
    )
    (root / "annotations").mkdir()
    content = b'{"images": %s, "annotations": [%s]}'
    path = root / "annotations" / "captions_train2017.json"
    path.write_bytes(content % (json.dumps(images).encode(), b", ".join(captions)))


def write_separated(root, samples, kind):
    """As by hand: nothing is quoted."""
    delimiter = {"csv": b",", "tsv": b"\t"}[kind]
    rows = [b"image" + delimiter + b"caption"]
    rows += [name.encode() + delimiter + as_bytes(text) for name, text in samples]
    (root / f"train.{kind}").write_bytes(b"\n".join(rows) + b"\n")


def write_lines(root, samples):
    rows = (b'{"image": "%s", "caption": %s}\n' % (n.encode(), as_json(t)) for n, t in samples)
    (root / "train.jsonl").write_bytes(b"".join(rows))


def write_parquet(root, samples):
    texts = [None if text is None else as_bytes(text) for _, text in samples]
    captions = pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())  # unchecked
    table = pyarrow.table({"image": [name for name, _ in samples], "caption": captions})
    parquet.write_table(table, root / "train.parquet")


def write_folder(root, samples):
    for name, text in samples:
        (root / name).touch()
        if text is not None:
            (root / name).with_suffix(".txt").write_bytes(as_bytes(text))


def write_shard(root, samples, kind):
    members = []
    for name, text in samples:
        stem = name.rpartition(".")[0]
        members.append((name, b"image"))
        if kind == "json":
            members.append((f"{stem}.json", b'{"caption": %s}' % as_json(text)))
        elif text is not None:
            members.append((f"{stem}.txt", as_bytes(text)))
    (root / "f").mkdir()
    (root / "f" / "0.tar").write_bytes(tar(members))


def read_table(root, on_bad_image):
    return TableCaptions(str(root), "train", on_bad_image)


def read_shard(root, on_bad_image):
    return opened(root / "f", on_bad_image=on_bad_image)


READERS = {
    "coco": (write_coco, lambda root, skip: CocoCaptions(root, "train", skip)),
    "csv": (lambda root, samples: write_separated(root, samples, "csv"), read_table),
    "tsv": (lambda root, samples: write_separated(root, samples, "tsv"), read_table),
    "jsonl": (write_lines, read_table),
    "parquet": (write_parquet, read_table),
    "folder": (write_folder, TextFolder),
    "txt shard": (lambda root, samples: write_shard(root, samples, "txt"), read_shard),
    "json shard": (lambda root, samples: write_shard(root, samples, "json"), read_shard),
}
GOOD = (("a.jpg", "one"), ("b.jpg", "two"), ("c.jpg", "three"), ("d.jpg", "four"))
DEFECTS = {
    "none": {},
    "no caption": {1: ("b.jpg", None)},
    "blank": {1: ("b.jpg", " ")},
    "invisible": {1: ("b.jpg", "\u200b\ufeff\u00a0")},
    "zero bytes": {1: ("b.jpg", b"t\0w\0o\0")},
    "quotes inside": {1: ("b.jpg", 'the "open" sign it\'s')},
    "Windows-1252": {1: ("b.jpg", b"caf\xe9")},
    "two quotes": {1: ("b.jpg", '"open'), 2: ("c.jpg", 'tea"')},
    "a quote": {1: ("b.jpg", '"open')},
    "long": {1: ("b.jpg", "very " * 30_000)},
    "a dot in a name": {1: ("v1.5 b.jpg", "two")},
    "capitals": {1: ("b.JPG", "two")},
    "a newer format": {1: ("b.avif", "two")},
}
TABLES = ("csv", "tsv", "jsonl", "parquet")
REFUSED = {("Windows-1252", reader) for reader in ("coco", *TABLES, "folder")}
REFUSED |= {("two quotes", "csv"), ("a quote", "csv")}
REFUSED |= {("zero bytes", reader) for reader in ("csv", "tsv", "jsonl", "folder")}
COUNTED = {
    (defect, reader) for defect in ("no caption", "blank", "invisible") for reader in READERS
}
COUNTED |= {
    (defect, f"{kind} shard")
    for defect in ("Windows-1252", "zero bytes")
    for kind in ("txt", "json")
}
TRIALS = [
    (defect, reader)
    for defect in DEFECTS
    for reader in READERS
    # In Parquet they are a part of the text; in COCO's JSON they are no place to name.
    if defect != "zero bytes" or reader not in ("coco", "parquet")
]
PLACES = {
    "coco": r"image ids 1|byte \d+, after",
    "csv": "line 3",
    "tsv": "line 3",
    "jsonl": "line 2",
    "parquet": "row 2",
    "folder": r"b\.jpg|b\.txt",
    "txt shard": "0.tar: .*keys b",
    "json shard": "0.tar: .*keys b",
}
REMEDY = r"convert it to UTF-8|in double quotes|skip"


@pytest.mark.parametrize(("defect", "reader"), TRIALS)
def test_every_image_is_read_or_counted_or_refused_by_name(tmp_path, reader, defect):
    write, read = READERS[reader]
    samples = [DEFECTS[defect].get(n, sample) for n, sample in enumerate(GOOD)]
    write(tmp_path, samples)
    for on_bad_image in ("error", "skip"):
        if (defect, reader) in REFUSED or (on_bad_image == "error" and (defect, reader) in COUNTED):
            with pytest.raises(UserError) as caught:
                read(tmp_path, on_bad_image)
            assert str(tmp_path) in str(caught.value)
            assert re.search(PLACES[reader], str(caught.value))
            assert re.search(REMEDY, str(caught.value))
            continue
        records = read(tmp_path, on_bad_image)
        left_out = [
            line for line in records.report if re.match(r"(0\.tar: )?\d+ (images|pic)", line)
        ]
        count = sum(int(line.removeprefix("0.tar: ").split()[0]) for line in left_out)
        assert count == ((defect, reader) in COUNTED)
        assert len(records) + count == len(samples)
        if not count:
            captions = {text for record in records for text in record.captions}
            assert captions == {text for _, text in samples}


OUTSIDE = ("../a.jpg", "im/../../a.jpg", "/etc/passwd", "..", "")
ODD = {
    "im\\1.jpg": "im/1.jpg",
    "im/%31.jpg": "im/1.jpg",
    "im/1.jpg ": "im/1.jpg",
    "im/1.JPG": "im/1.jpg",
    "im/2.jpg": "im/2.JPG",
    "im/none.jpg": None,
    "im": None,
}


@pytest.mark.parametrize("reader", [*TABLES, "coco"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_is_refused_with_its_place(tmp_path, reader, name):
    write, read = READERS[reader]
    write(tmp_path, [GOOD[0], (name, "two"), GOOD[2]])
    for on_bad_image in ("error", "skip"):
        with pytest.raises(UserError) as caught:
            read(tmp_path, on_bad_image)
        assert re.search("line 3|line 2|row 2|'id': 1", str(caught.value))
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_a_name_nearly_names_is_found(tmp_path, name):
    (tmp_path / "im").mkdir()
    for number, file in enumerate(("1.jpg", "2.JPG")):
        (tmp_path / "im" / file).write_bytes(b"%d" % number)
    write_lines(tmp_path, [("im/1.jpg", "one"), (name.replace("\\", "\\\\"), "two")])
    records = read_table(tmp_path, "skip")
    (missing,) = records.missing(range(2))
    assert missing == tmp_path / name
    found = similar_file(missing)
    assert found == (None if ODD[name] is None else tmp_path / ODD[name])


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_line_ends_of_old_macs_are_refused_in_words(tmp_path, kind):
    write_separated(tmp_path, GOOD, kind)
    path = tmp_path / f"train.{kind}"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    with pytest.raises(UserError, match="line 1: a carriage return ends a value"):
        read_table(tmp_path, "skip")
    path.write_bytes(path.read_bytes().replace(b"\r", b"\r\n"))
    assert len(read_table(tmp_path, "error")) == len(GOOD)
