import json
import re
import subprocess
import sys

import pyarrow
import pytest
from pyarrow import parquet
from tests.data.tars import tar

from virtex.build.sources import open_splits
from virtex.cli import main
from virtex.config.data import Data
from virtex.text.tokenizer import Tokenizer

CAPTIONS = [f"A {c} Café {n}" for c in ("red", "green", "blue") for n in ("left", "right", "here")]


@pytest.fixture
def captions(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("\n".join([*CAPTIONS, "", " "]), encoding="utf-8")
    return path


def tokenizer(*arguments):
    return main(["tokenizer", *map(str, arguments)])


def test_a_vocabulary_is_written_and_described(tmp_path, captions, capsys):
    output = tmp_path / "new" / "vocab.model"
    assert tokenizer(captions, "--output", output, "--vocab-size", 40) == 0
    assert Tokenizer.from_file(output).vocab_size == 40
    assert [path.name for path in output.parent.iterdir()] == ["vocab.model"]
    printed = capsys.readouterr().out
    for fact in ["9 (2 blank", "40 pieces", "0.000% of", "a red cafe left", str(output)]:
        assert fact in printed


@pytest.mark.usefixtures("captions")
def test_all_kinds_of_files_give_the_same_vocabulary(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({"annotations": [{"caption": c} for c in CAPTIONS]})
    )
    (tmp_path / "a.csv").write_text("\n".join(["caption,n", *(f"{c},1" for c in CAPTIONS)]))
    (tmp_path / "a.tsv").write_text("\n".join(["n\ttext", *(f"1\t{c}" for c in CAPTIONS)]))
    (tmp_path / "half.txt").write_text("\n".join(CAPTIONS[:4]))
    (tmp_path / "rest.txt").write_text("\n".join(CAPTIONS[4:]))
    sources = ["captions.txt"], ["a.json"], ["a.csv"], ["half.txt", "rest.txt"], ["a.tsv"]
    models = set()
    for source in sources:
        output = tmp_path / f"{source[0]}.model"
        column = "text" if source == ["a.tsv"] else "caption"
        files = [tmp_path / name for name in source]
        options = ["--output", output, "--vocab-size", 40, "--column", column]
        assert tokenizer(*files, *options) == 0
        models.add(output.read_bytes())
    assert len(models) == 1


def test_an_existing_file_is_kept_unless_asked(tmp_path, captions, capsys):
    output = tmp_path / "vocab.model"
    output.write_text("mine")
    assert tokenizer(captions, "--output", output, "--vocab-size", 40) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert tokenizer(captions, "--output", output, "--vocab-size", 40, "--overwrite") == 0
    assert Tokenizer.from_file(output).vocab_size == 40


def test_a_failure_keeps_the_existing_file(tmp_path, captions):
    output = tmp_path / "vocab.model"
    output.write_text("mine")
    assert tokenizer(captions, "--output", output, "--vocab-size", 10**6, "--overwrite") == 2
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("blank.txt", "\n \n", "no captions in .*blank.txt"),
        ("captions.csv", "a,b\n1,2\n", "no column of the caption, only 'a', 'b'"),
        ("few.txt", "a dog", "10000 pieces is too large.* largest possible size is"),
        ("none.txt", None, "cannot read .*none.txt"),
        ("none", None, "none does not exist"),
        ("a.jsonl", '{"caption": "a"}', "a.jsonl: it has no column of the image's path"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, capsys, name, content, reason):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert tokenizer(tmp_path / name, "--output", tmp_path / "vocab.model") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("virtex tokenizer: error: ")
    assert re.search(reason, line)
    assert not (tmp_path / "vocab.model").exists()


@pytest.mark.parametrize("output", ["", "captions.txt/vocab.model"])
def test_an_output_that_cannot_be_written_is_an_error(tmp_path, captions, capsys, output):
    assert tokenizer(captions, "--output", tmp_path / output, "--vocab-size", 40) == 2
    assert str(tmp_path / output) in capsys.readouterr().err


def write_data_sets(root):
    """The captions in each form that runs read, and its place; image ids are in their order."""
    ids = range(1, len(CAPTIONS) + 1)
    rows = [
        {"image": f"im/{i}.jpg", "caption": c, "image_id": i}
        for i, c in zip(ids, CAPTIONS, strict=True)
    ]
    for name in ("coco/annotations", "table", "folder/train", "shards/train"):
        (root / name).mkdir(parents=True)
    annotations = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids],
        "annotations": [{"image_id": row["image_id"], "caption": row["caption"]} for row in rows],
    }
    (root / "coco/annotations/captions_train2017.json").write_text(json.dumps(annotations))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "table/train.jsonl").write_text(lines)
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "rows.parquet")
    texts = {f"{i:03}.txt": c.encode() for i, c in zip(ids, CAPTIONS, strict=True)}
    images = {name.replace("txt", "jpg"): b"unread" for name in texts}
    for name, content in (texts | images).items():
        (root / "folder/train" / name).write_bytes(content)
    (root / "shards/train/0.tar").write_bytes(tar(texts | images))
    return (
        *("coco", "table", "table/train.jsonl", "rows.parquet", "folder", "folder/train"),
        *("shards", "shards/train"),
    )


def test_all_that_runs_read_gives_the_same_vocabulary(tmp_path, captions):
    output = tmp_path / "vocab.model"
    options = ["--output", output, "--vocab-size", 40, "--overwrite"]
    assert tokenizer(captions, *options) == 0
    expected = output.read_bytes()
    for source in write_data_sets(tmp_path):
        output.unlink()
        assert tokenizer(tmp_path / source, *options) == 0
        assert output.read_bytes() == expected, source


def test_a_configuration_says_what_to_read_and_to_write(tmp_path, capsys):
    write_data_sets(tmp_path)
    config = tmp_path / "run.yaml"
    model = tmp_path / "mine.model"
    settings = {"FORMAT": "table", "ROOT": str(tmp_path / "table"), "TOKENIZER_MODEL": str(model)}
    settings |= {"VOCAB_SIZE": 40, "TEXT_NORMALIZATION": "nfc"}
    config.write_text(json.dumps({"DATA": settings}))
    assert tokenizer("--config", config) == 0
    written = Tokenizer.from_file(model)
    assert (written.vocab_size, written.normalization) == (40, "nfc")
    assert "A red Café left" in capsys.readouterr().out
    assert tokenizer("--config", config, "--vocab-size", 50, tmp_path / "table") == 2
    assert "PATH, --vocab-size cannot be given with --config" in capsys.readouterr().err


def test_all_sources_of_a_configuration_are_read(tmp_path, captions, capsys):
    write_data_sets(tmp_path)
    sources = [
        {"FORMAT": kind, "ROOT": str(tmp_path / kind)}
        for kind in ("coco", "table", "folder", "shards")
    ]
    model = tmp_path / "mine.model"
    settings = {"SOURCES": sources, "TOKENIZER_MODEL": str(model), "VOCAB_SIZE": 40}
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({"DATA": settings}))
    assert tokenizer("--config", config) == 0
    assert "captions         36 (0 blank" in capsys.readouterr().out
    four = tmp_path / "four.model"
    assert tokenizer(*[captions] * 4, "--output", four, "--vocab-size", 40) == 0
    assert model.read_bytes() == four.read_bytes()
    flags = ("--encoding", "cp1252", "--column", "a")
    assert tokenizer("--config", config, *flags) == 2
    assert "--caption-column, --encoding cannot be given with" in capsys.readouterr().err


def drawn(root):
    """The settings of each data set of `write_data_sets`, with a drawn validation split."""
    kinds = ("coco", "table", "folder", "shards")
    sources = [{"FORMAT": kind, "ROOT": str(root / kind), "VAL_SHARE": 0.5} for kind in kinds]
    table = {"COLUMNS": {"IMAGE": "image"}, "GROUP_COLUMN": "image"}
    sources[1] |= table
    return sources


def captions_in_training(data):
    training = open_splits(Data.model_validate(data), "captions").training
    return [text for record in training for text in record.captions]


def vocabulary(tmp_path, texts):
    (tmp_path / "expected.txt").write_text("\n".join(texts))
    options = ["--output", tmp_path / "expected.model", "--vocab-size", 40, "--overwrite"]
    assert tokenizer(tmp_path / "expected.txt", *options) == 0
    return (tmp_path / "expected.model").read_bytes()


def test_a_vocabulary_is_of_the_captions_that_a_drawn_split_leaves_for_training(tmp_path):
    write_data_sets(tmp_path)
    output = tmp_path / "vocab.model"
    places = {"table": [tmp_path / "table", tmp_path / "table/train.jsonl"]}
    for source in drawn(tmp_path):
        texts = captions_in_training(source)
        assert 0 < len(texts) < len(CAPTIONS)
        expected = vocabulary(tmp_path, texts)
        flags = ["--val-share", 0.5, "--output", output, "--vocab-size", 40, "--overwrite"]
        if source["FORMAT"] == "table":
            flags += ["--image-column", "image", "--group-column", "image"]
        for place in places.get(source["FORMAT"], [source["ROOT"]]):
            assert tokenizer(place, *flags) == 0
            assert output.read_bytes() == expected, place
        config = tmp_path / "run.yaml"
        settings = {"TOKENIZER_MODEL": str(output), "VOCAB_SIZE": 40}
        config.write_text(json.dumps({"DATA": source | settings}))
        assert tokenizer("--config", config, "--overwrite") == 0
        assert output.read_bytes() == expected, source


def test_a_vocabulary_of_sources_is_of_what_their_drawn_splits_leave(tmp_path):
    write_data_sets(tmp_path)
    sources, output = drawn(tmp_path), tmp_path / "vocab.model"
    texts = captions_in_training({"SOURCES": sources})
    assert 0 < len(texts) < 4 * len(CAPTIONS)
    settings = {"SOURCES": sources, "TOKENIZER_MODEL": str(output), "VOCAB_SIZE": 40}
    (tmp_path / "run.yaml").write_text(json.dumps({"DATA": settings}))
    assert tokenizer("--config", tmp_path / "run.yaml") == 0
    assert output.read_bytes() == vocabulary(tmp_path, texts)


def test_of_a_file_of_captions_no_split_can_be_drawn(tmp_path, captions, capsys):
    flags = ("--output", tmp_path / "vocab.model", "--val-share", "0.5")
    assert tokenizer(captions, *flags) == 2
    assert "captions.txt is neither a data set nor a table" in capsys.readouterr().err


def write_described(root):
    """The captions, and others of validation, in forms that flags describe."""
    table = ["Datei;Befund;Teil", *(f"{n}.jpg;{c};train" for n, c in enumerate(CAPTIONS))]
    for name in ("table", "folder", "flat"):
        (root / name).mkdir()
    (root / "table/all.csv").write_text("\n".join([*table, "x.jpg;x;val"]), encoding="cp1252")
    texts = {f"{n:03}.txt": c.encode("cp1252") for n, c in enumerate(CAPTIONS)}
    images = {name.replace("txt", "jpg"): b"unread" for name in texts}
    for name, content in (texts | images).items():
        (root / "folder" / name).write_bytes(content)
    (root / "flat/my-train-0.tar").write_bytes(tar(texts | images))
    (root / "flat/my-val-0.tar").write_bytes(tar({"a.jpg": b"unread", "a.txt": b"x"}))


def test_flags_describe_files_and_directories_alike(tmp_path, captions, capsys):
    write_described(tmp_path)
    output = tmp_path / "vocab.model"
    options = ["--output", output, "--vocab-size", 40, "--overwrite"]
    assert tokenizer(captions, *options) == 0
    expected = output.read_bytes()
    options += ["--encoding", "cp1252"]
    columns = ["--image-column", "Datei", "--caption-column", "Befund", "--split-column", "Teil"]
    columns += ["--separator", ";"]
    for name, flags in {
        "table": columns,
        "table/all.csv": columns,
        "folder": [],
        "flat": [],
    }.items():
        output.unlink()
        assert tokenizer(tmp_path / name, *options, *flags) == 0, capsys.readouterr().err
        assert output.read_bytes() == expected, name
    assert tokenizer(tmp_path / "folder", *options, "--separator", ";") == 2
    assert "--separator" in capsys.readouterr().err


def test_changed_letters_are_counted_and_shown(tmp_path, captions, capsys):
    output = tmp_path / "vocab.model"
    options = ["--output", output, "--vocab-size", 40, "--overwrite"]
    assert tokenizer(captions, *options) == 0
    letters = sum(len(caption.replace(" ", "")) for caption in CAPTIONS)
    printed = capsys.readouterr().out
    assert f"published, changes {len(CAPTIONS) / letters:.3%} of {letters}" in printed
    assert "besides case: é → e\n" in printed
    assert tokenizer(captions, *options, "--normalization", "nfkc_lower") == 0
    printed = capsys.readouterr().out
    assert f"nfkc_lower, changes 0.000% of {letters} characters besides case\n" in printed
    assert "DATA.TEXT_NORMALIZATION nfkc_lower" in printed
    assert Tokenizer.from_file(output).normalization == "nfkc_lower"


@pytest.mark.cold
def test_help_imports_nothing_heavy():
    code = (
        "import sys, virtex.commands.tokenizer as command, argparse\n"
        "command.add_arguments(argparse.ArgumentParser())\n"
        "assert not {'torch', 'cv2', 'numpy', 'sentencepiece'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
