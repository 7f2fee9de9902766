"""Both splits of any data: given, named by a column, drawn, or of several sources."""

import json
import shutil

import fsspec
import numpy as np
import pytest
from tests.data.faulty_server import serve
from tests.data.tars import tar

from virtex.build.sources import caption_records, mixture, open_splits
from virtex.cli import main
from virtex.config.data import Data
from virtex.data.remote.shards import remote_splits
from virtex.data.subset import subset
from virtex.errors import UserError

COUNT = 60


def write_table(root, start=0, header="image,caption,patient"):
    root.mkdir()
    rows = [f"{n}.jpg,caption {n},p{n // 4}" for n in range(start, start + COUNT)]
    (root / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def write_coco(root):
    (root / "annotations").mkdir(parents=True)
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(COUNT)],
        "annotations": [{"image_id": n, "caption": f"caption {n}"} for n in range(COUNT)],
    }
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps(content))


def write_folder(root):
    root.mkdir()
    for n in range(COUNT):
        (root / f"{n}.jpg").touch()
        (root / f"{n}.txt").write_text(f"caption {n}")


def write_shards(root, names=("0.tar", "1.tar"), key="caption"):
    root.mkdir()
    for number, name in enumerate(names):
        (root / name).parent.mkdir(exist_ok=True)
        members = {}
        for n in range(number * COUNT // len(names), (number + 1) * COUNT // len(names)):
            members |= {f"{n}.jpg": b"-", f"{n}.json": json.dumps({key: f"caption {n}"}).encode()}
        (root / name).write_bytes(tar(members))


WRITERS = {
    "coco": write_coco,
    "table": write_table,
    "folder": write_folder,
    "shards": write_shards,
}


def numbers(records):
    return {int(record.captions[0].split()[1]) for record in records}


def both(data):
    splits = open_splits(data, "captions")
    return numbers(splits.training), numbers(splits.validation)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_validation_split_is_drawn_from_any_format(tmp_path, kind):
    WRITERS[kind](tmp_path / "a")
    data = Data(format=kind, root=str(tmp_path / "a"), val_share=0.25)
    splits = open_splits(data, "captions")
    training, validation = numbers(splits.training), numbers(splits.validation)
    assert training | validation == set(range(COUNT))
    assert not training & validation
    assert 5 < len(validation) < 25
    line = f"{len(validation)} of 60 images are drawn for validation by DATA.VAL_SHARE 0.25"
    assert line in splits.training.report[-1]
    assert both(data) == (training, validation)
    assert both(data.model_copy(update={"val_seed": 1})) != (training, validation)
    # One split alone, as `virtex pack` opens it.
    assert numbers(caption_records(data, "val")) == validation
    # Contents of a part are those of its records.
    whole = splits.training.content_rows
    assert whole["image_id"].tolist() == [record.image_id for record in splits.training]


@pytest.mark.parametrize("kind", WRITERS)
def test_an_existing_validation_split_is_not_replaced(tmp_path, kind):
    WRITERS[kind](tmp_path / "a")
    root = tmp_path / "a"
    if kind == "coco":
        train = root / "annotations" / "captions_train2017.json"
        shutil.copy(train, root / "annotations" / "captions_val2017.json")
    elif kind == "table":
        shutil.copy(root / "train.csv", root / "val.csv")
    else:
        (root / "val").mkdir()
    with pytest.raises(UserError, match=r"there is one: .*val.*; remove VAL_SHARE"):
        open_splits(Data(format=kind, root=str(root), val_share=0.25), "captions")


def test_a_drawn_image_stays_on_its_side_when_others_are_added(tmp_path):
    small = Data(format="table", root=str(write_table(tmp_path / "a")), val_share=0.3)
    (tmp_path / "b").mkdir()
    rows = [f"{n}.jpg,caption {n}" for n in range(2 * COUNT)][::-1]
    (tmp_path / "b" / "train.csv").write_text("\n".join(["image,caption", *rows]))
    large = Data(format="table", root=str(tmp_path / "b"), val_share=0.3)
    assert both(small)[1] == both(large)[1] & set(range(COUNT))


def test_a_share_that_leaves_a_side_empty_is_refused(tmp_path):
    root = str(write_table(tmp_path / "a"))
    with pytest.raises(UserError, match="leaves no image for validation of 60; set another"):
        open_splits(Data(format="table", root=root, val_share=1e-9), "captions")


def test_groups_stay_on_one_side(tmp_path):
    root = write_table(tmp_path / "a")
    with (root / "train.csv").open("a") as file:
        file.write("98.jpg,caption 98,\n99.jpg,caption 99,\n")
    data = Data(format="table", root=str(root), val_share=0.4, group_column="patient")
    training, validation = both(data)
    assert training | validation == {*range(COUNT), 98, 99}
    patients = [{n // 4 for n in side if n < COUNT} for side in (training, validation)]
    assert not patients[0] & patients[1]
    assert all(patients)
    report = open_splits(data, "captions").training.report[-1]
    assert f"{len(patients[1])} of 15 groups of 'patient'" in report
    assert "2 images without a group are drawn one by one" in report


@pytest.mark.parametrize("by_column", [True, False])
def test_a_group_in_both_given_splits_is_refused(tmp_path, by_column):
    rows = [f"{n}.jpg,caption,p{n // 4},{'val' if n > 9 else 'train'}" for n in range(12)]
    header = "image,caption,patient,split"
    if by_column:
        (tmp_path / "a.csv").write_text("\n".join([header, *rows]))
    else:
        (tmp_path / "train.csv").write_text("\n".join([header, *rows[:10]]))
        (tmp_path / "val.csv").write_text("\n".join([header, *rows[10:]]))
    columns = {"COLUMNS": {"SPLIT": "split"}} if by_column else {}
    values = {"FORMAT": "table", "ROOT": str(tmp_path), "GROUP_COLUMN": "patient", **columns}
    with pytest.raises(UserError, match=r"1 groups of the column 'patient' .*\(p2\)"):
        open_splits(Data.model_validate(values), "captions")


def test_flat_shards_are_split_by_their_names(tmp_path):
    write_shards(tmp_path / "a", ("cc-train-0.tar", "cc-train-1.tar", "cc-validation-0.tar"))
    data = Data(format="shards", root=str(tmp_path / "a"))
    assert both(data) == (set(range(40)), set(range(40, 60)))
    assert both(data) == (set(range(40)), set(range(40, 60)))  # from their indexes


def test_flat_shards_without_splits_in_their_names_are_refused_with_a_remedy(tmp_path):
    write_shards(tmp_path / "a")
    with pytest.raises(UserError, match=r"holds shards itself.*DATA\.VAL_SHARE"):
        open_splits(Data(format="shards", root=str(tmp_path / "a")), "captions")


@pytest.fixture
def addresses(tmp_path):
    """Publishes a directory at two addresses: one that can be listed, and one that cannot."""
    filesystem = fsspec.filesystem("memory")
    with serve() as server:

        def publish(directory):
            for path in directory.rglob("*"):
                if path.is_file():
                    name = f"{directory.name}/{path.relative_to(directory)}"
                    filesystem.pipe_file(f"/{tmp_path.name}/{name}", path.read_bytes())
                    server.files[f"/{name}"] = path.read_bytes()
            listed = f"memory://{tmp_path.name}/{directory.name}"
            return listed, f"{server.url}/{directory.name}"

        yield publish
    filesystem.rm(f"/{tmp_path.name}", recursive=True)


FLAT = ("cc-train-0.tar", "cc-train-1.tar", "cc-validation-0.tar")
LAYOUTS = {
    "flat, named": (FLAT, {}),
    "flat, drawn": (("0.tar", "1.tar"), {"VAL_SHARE": 0.3}),
    "train and val": (("train/0.tar", "train/1.tar", "val/0.tar"), {}),
    "train, drawn": (("train/0.tar", "train/1.tar"), {"VAL_SHARE": 0.3}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shards_at_an_address_are_split_as_those_on_a_disk(
    tmp_path, addresses, layout, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    names, values = LAYOUTS[layout]
    write_shards(tmp_path / "a", names)
    local = {"FORMAT": "shards", "ROOT": str(tmp_path / "a"), "CACHE_DIR": str(tmp_path / "cache")}
    expected = both(Data.model_validate(local | values))
    assert main(["index", str(tmp_path / "a"), "--quiet", "--workers", "1"]) == 0
    for address in addresses(tmp_path / "a"):
        data = Data.model_validate(local | values | {"ROOT": address})
        splits = open_splits(data, "captions")
        assert (numbers(splits.training), numbers(splits.validation)) == expected, address
        remote = remote_splits(splits.training, splits.training, splits.validation)
        (source,) = remote.sources
        samples = source.training.samples.sum(), source.validation.samples.sum()
        assert samples == (len(splits.training), len(splits.validation))
        whole = sum((tmp_path / "a" / name).stat().st_size for name in names)
        assert whole / 2 < remote.sources[0].most_bytes(1000) < 2 * whole + 10_000


def test_an_index_is_made_at_an_address_as_on_a_disk(tmp_path, addresses, capsys):
    write_shards(tmp_path / "flat", FLAT)
    write_shards(tmp_path / "inside", ("train/0.tar", "val/0.tar"))
    cache = ("--cache-dir", str(tmp_path / "cache"), "--quiet", "--workers", "1")
    for name, parts in {"flat": ("", ""), "inside": ("/train", "/val")}.items():
        listed, _ = addresses(tmp_path / name)
        assert main(["index", listed, *cache]) == 0
        printed = capsys.readouterr().out
        for part in parts:
            assert f"{listed}{part}: " in printed
        assert f"{40 if name == 'flat' else 30} samples" in printed


def test_a_validation_split_at_an_address_is_not_drawn_beside_an_existing_one(tmp_path, addresses):
    write_shards(tmp_path / "a", FLAT)
    write_shards(tmp_path / "b", ("train/0.tar", "val/0.tar"))
    for name in "ab":
        listed, _ = addresses(tmp_path / name)
        values = {"FORMAT": "shards", "ROOT": listed, "VAL_SHARE": 0.2}
        data = Data.model_validate(values | {"CACHE_DIR": str(tmp_path / "cache")})
        with pytest.raises(UserError, match=r"there is one: .*memory.*; remove VAL_SHARE"):
            open_splits(data, "captions")


def test_the_key_of_captions_in_shards_is_a_setting(tmp_path):
    write_shards(tmp_path / "a", key="TEXT")
    root = {"FORMAT": "shards", "ROOT": str(tmp_path / "a"), "VAL_SHARE": 0.25}
    with pytest.raises(UserError, match=r"the keys 'TEXT' \(30\).*set DATA\.COLUMNS\.CAPTION"):
        open_splits(Data.model_validate(root), "captions")
    named = Data.model_validate(root | {"COLUMNS": {"CAPTION": "TEXT"}})
    for _ in range(2):  # indexed, and from the indexes
        training, validation = both(named)
        assert training | validation == set(range(COUNT))
    with pytest.raises(UserError, match=r"keys 'TEXT' \(30\).*KEY.json with 'text'"):
        open_splits(Data.model_validate(root | {"COLUMNS": {"CAPTION": "text"}}), "captions")


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_texts_of_another_encoding_are_read_by_a_setting(tmp_path, kind):
    words = {n: f"Größe {n}".encode("cp1252") for n in range(9)}
    files = {
        name: data for n in words for name, data in ((f"{n}.jpg", b"-"), (f"{n}.txt", words[n]))
    }
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        if kind == "shards":
            (tmp_path / split / "0.tar").write_bytes(tar(files))
        else:
            for name, data in files.items():
                (tmp_path / split / name).write_bytes(data)
    with pytest.raises(UserError, match=r"not UTF-8.*DATA\.ENCODING"):
        open_splits(Data(format=kind, root=str(tmp_path)), "captions")
    splits = open_splits(Data(format=kind, root=str(tmp_path), encoding="cp1252"), "captions")
    assert {text for record in splits.training for text in record.captions} == {
        f"Größe {n}" for n in range(9)
    }


def sources(*values):
    return Data.model_validate({"SOURCES": [{"FORMAT": "table", **each} for each in values]})


def test_several_sources_are_one_after_the_other(tmp_path):
    write_table(tmp_path / "a")
    write_table(tmp_path / "b", start=COUNT)
    write_shards(tmp_path / "c")
    roots = [str(tmp_path / name) for name in "abc"]
    data = sources(
        {"ROOT": roots[0], "VAL_SHARE": 0.5, "WEIGHT": 3.0},
        {"ROOT": roots[1], "VAL_SHARE": 0.1},
        {"ROOT": roots[2], "VAL_SHARE": 0.1, "FORMAT": "shards"},
    )
    splits = open_splits(data, "captions")
    parts = splits.training.parts
    assert [record.captions for record in splits.training] == [
        record.captions for part in parts for record in part
    ]
    ids = [record.image_id for record in splits.training]
    assert ids == splits.training.image_ids.tolist()
    assert len(set(ids)) == len(splits.training)
    assert f"{roots[0]}: {len(parts[0])} images, weight 3 (60.0%)" in splits.training.report
    # A subset keeps the sources apart.
    half = subset(splits.training, 50, 0)
    mixed = mixture(data, splits.training, half)
    ends = np.cumsum([len(part) for part in parts])
    where = np.searchsorted(ends, half._positions.numpy(), side="right")
    assert mixed.sizes == np.bincount(where, minlength=3).tolist()


def test_sources_with_equal_ids_get_others(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for split in ("train", "val"):
            rows = "".join(f"{n}.jpg,{name} {n},{n}\n" for n in range(5))
            (tmp_path / name / f"{split}.csv").write_text("image,caption,image_id\n" + rows)
    records = open_splits(
        sources(*({"ROOT": str(tmp_path / n)} for n in "ab")), "captions"
    ).training
    assert len(np.unique(records.image_ids)) == 10
    assert [record.image_id for record in records] == records.image_ids.tolist()
    assert records.content_rows["image_id"].tolist() == records.image_ids.tolist()


def test_the_problems_of_all_sources_are_reported_together(tmp_path):
    write_table(tmp_path / "a", header="x,y,z")
    data = sources({"ROOT": str(tmp_path / "a")}, {"ROOT": str(tmp_path / "none")})
    with pytest.raises(UserError) as caught:
        open_splits(data, "captions")
    assert "2 problems of DATA.SOURCES" in str(caught.value)
    assert "'x', 'y', 'z'" in str(caught.value)
    assert f"the source {tmp_path / 'none'}: DATA.ROOT" in str(caught.value)


def test_a_validation_split_of_objects_is_drawn_too(tmp_path):
    write_coco(tmp_path / "a")
    path = tmp_path / "a" / "annotations" / "instances_train2017.json"
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(COUNT)],
        "annotations": [{"image_id": n, "category_id": 1 + n % 2} for n in range(COUNT)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path.write_text(json.dumps(content))
    data = Data(root=str(tmp_path / "a"), val_share=0.25)
    splits = open_splits(data, "categories")
    assert splits.categories == ("cat", "dog")
    ids = [splits.training.image_ids, splits.validation.image_ids]
    assert sorted(np.concatenate(ids).tolist()) == list(range(COUNT))
    # The same images as of captions.
    assert ids[1].tolist() == open_splits(data, "captions").validation.image_ids.tolist()


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_data_of_captions_have_no_categories(tmp_path, kind):
    with pytest.raises(UserError, match=f"DATA.FORMAT is {kind}, which holds captions"):
        open_splits(Data(format=kind, root=str(tmp_path)), "categories")


def test_flat_shards_of_validation_are_not_drawn_from(tmp_path):
    write_shards(tmp_path / "a", ("x-train-0.tar", "x-val-0.tar"))
    data = Data(format="shards", root=str(tmp_path / "a"), val_share=0.25)
    with pytest.raises(UserError, match=r"shards of .* with 'val' in their names; remove"):
        open_splits(data, "captions")
