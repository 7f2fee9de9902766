"""Every planted defect is found, and nothing else is."""

import json
import shutil
import tarfile
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest
from tests.doctor.conftest import TRAINING
from tests.doctor.planting import PLANTS, Tree

from virtex import cli
from virtex.build.observer import Observer
from virtex.checkpoints.file import Retention
from virtex.config import loading
from virtex.config.schema import Config
from virtex.data import subset
from virtex.doctor.checkup import Checkup, Options, examine


@pytest.fixture
def tree(scenes, tmp_path) -> Tree:
    return Tree(Path(shutil.copytree(scenes, tmp_path / "data")))


def examined(root: Path, directory: Path, *overrides: str) -> Checkup:
    layers = [("here", {"DATA": {"ROOT": str(root), "IMAGE_CROP_SIZE": 64}})]
    config = loading.load_layers(Config, [*layers, *loading.override_layers(overrides)], "here")
    options = Options(
        images=10_000,
        workers=0,
        reading=lambda *_: nullcontext(lambda _: None),
        observer=Observer(touched=False),
        directory=directory,
        retention=Retention(3),
    )
    checkup = Checkup()
    examine(config, options, checkup, complete=False)
    return checkup


def kinds(checkup: Checkup) -> set[str]:
    """The kinds of all findings but notes."""
    return {each.kind for each in checkup.findings if each.severity != "note"}


def test_a_sound_data_set_has_no_finding(tree, tmp_path):
    assert kinds(examined(tree.root, tmp_path)) == set()


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_defect_is_the_only_finding(tree, tmp_path, name):
    kind, plant = PLANTS[name]
    plant(tree)
    tree.save()
    assert kinds(examined(tree.root, tmp_path)) == {kind}


def test_all_defects_are_found_at_once(tree, tmp_path):
    for _, plant in PLANTS.values():
        plant(tree)
    tree.save()
    assert kinds(examined(tree.root, tmp_path)) >= {kind for kind, _ in PLANTS.values()}


def doctor(*words: object) -> int:
    return cli.main(["doctor", *map(str, words)])


def test_a_sound_run_has_no_problem(configuration, tmp_path, capsys):
    assert doctor(configuration, "--workers", 1, "--serialization-dir", tmp_path) == 0
    assert "0 problems, 0 warnings" in capsys.readouterr().out


def test_files_for_other_programs(tree, configuration, tmp_path, capsys):
    for name in ("truncated", "duplicate", "leak", "missing"):
        PLANTS[name][1](tree)
    tree.save()
    json_file, manifest = tmp_path / "findings.json", tmp_path / "subset.json"
    words = ["--json", json_file, "--write-manifest", manifest, "--workers", 1]
    override = ["--config-override", "DATA.ROOT", tree.root]
    assert doctor(configuration, *words, *override) == 1
    content = json.loads(json_file.read_text())
    assert content["format"] == 1
    found = {each["kind"]: each for each in content["findings"]}
    assert found["unreadable-images"]["count"] == 1
    assert found["unreadable-images"]["total"] == TRAINING - 1
    assert found["leaked-images"]["severity"] == "problem"
    assert str(tree.root) in found["duplicate-images"]["examples"][0]
    listed = subset.read(manifest)  # as a run with DATA.SUBSET_MANIFEST reads it
    unfit = {tree.content["images"][number]["id"] for number in (0, 2, 3, 4)}
    assert set(listed.ids) == {each["id"] for each in tree.content["images"]} - unfit
    assert "36 of 40 training images" in capsys.readouterr().out


def _by_image(tree: Tree, split: str) -> dict[str, list[str]]:
    path = tree.root / "annotations" / f"captions_{split}2017.json"
    content = json.loads(path.read_text())
    names = {each["id"]: each["file_name"] for each in content["images"]}
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    for each in content["annotations"]:
        captions[names[each["image_id"]]].append(each["caption"])
    return captions


def as_table(tree: Tree) -> Path:
    """Both splits in one table with the columns of a German export."""
    rows = ["Datei;Befund;split"]
    for split in ("train", "val"):
        for name, captions in _by_image(tree, split).items():
            rows += [f"{split}2017/{name};{caption};{split}" for caption in captions]
    (tree.root / "export.csv").write_text("\n".join(rows))
    shutil.rmtree(tree.root / "annotations")
    return tree.root


def as_folder(tree: Tree) -> Path:
    """Texts beside the images."""
    for split in ("train", "val"):
        for name, captions in _by_image(tree, split).items():
            path = tree.root / f"{split}2017" / name
            path.with_suffix(".txt").write_text("\n".join(captions))
        (tree.root / f"{split}2017").rename(tree.root / split)
    shutil.rmtree(tree.root / "annotations")
    return tree.root


def as_shards(tree: Tree) -> Path:
    """Tar files without an index, as others write them."""
    for split in ("train", "val"):
        directory = tree.root / "shards" / split
        directory.mkdir(parents=True)
        with tarfile.open(directory / "0.tar", "w") as tar:
            for name, captions in _by_image(tree, split).items():
                path = tree.root / f"{split}2017" / name
                text = path.with_suffix(".txt")
                text.write_text("\n".join(captions))
                tar.add(path, path.name)
                tar.add(text, text.name)
    return tree.root / "shards"


@pytest.mark.parametrize("convert", [as_table, as_folder, as_shards])
def test_every_format_is_checked_without_a_configuration(tree, tmp_path, convert):
    root = convert(tree)
    before = sorted(root.rglob("*"))
    json_file = tmp_path / "findings.json"
    assert doctor(root, "--workers", 1, "--json", json_file) == 0
    assert sorted(root.rglob("*")) == before  # not even indexes of shards
    found = json.loads(json_file.read_text())["findings"]
    assert {each["kind"] for each in found if each["severity"] == "warning"} == set()


@pytest.mark.parametrize("convert", [as_table, as_folder, as_shards])
def test_defects_are_found_in_every_format(tree, tmp_path, convert):
    names = ("truncated", "placeholder", "leak", "markup")
    for name in names:
        PLANTS[name][1](tree)
    tree.save()
    json_file = tmp_path / "findings.json"
    assert doctor(convert(tree), "--workers", 1, "--json", json_file) == 1
    found = json.loads(json_file.read_text())["findings"]
    kinds = {each["kind"] for each in found if each["severity"] != "note"}
    assert kinds == {PLANTS[name][0] for name in names}
    assert [each["count"] for each in found if each["kind"] == "images"] == [40, 12]


def test_a_manifest_without_opening_images_lacks_the_missing_ones(tree, configuration, tmp_path):
    PLANTS["missing"][1](tree)
    manifest = tmp_path / "subset.json"
    override = ["--config-override", "DATA.ROOT", tree.root]
    assert doctor(configuration, "--no-images", "--write-manifest", manifest, *override) == 1
    assert tree.content["images"][0]["id"] not in subset.read(manifest).ids


def test_what_a_run_skips_is_no_problem(tree, configuration, tmp_path):
    for name in ("missing", "truncated", "blank caption"):
        PLANTS[name][1](tree)
    tree.save()
    override = ["--config-override", "DATA.ROOT", tree.root, "DATA.ON_BAD_IMAGE"]
    assert doctor(configuration, "--workers", 1, *override, "error") == 1
    json_file = tmp_path / "findings.json"
    assert doctor(configuration, "--workers", 1, "--json", json_file, *override, "skip") == 0
    found = json.loads(json_file.read_text())["findings"]
    warnings = {each["kind"] for each in found if each["severity"] == "warning"}
    assert warnings == {"missing-images", "unreadable-images", "unusable-items"}


def test_data_are_only_read(tree, tmp_path):
    def state() -> dict[str, tuple[int, int, str]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_mode, _digest(path))
            for path in [tree.root, *tree.root.rglob("*")]
        }

    before = state()
    examined(tree.root, tmp_path)
    assert state() == before


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        (("OPTIM.BATCH_SIZE", "64"), "length"),
        (("DATA.TOKENIZER_MODEL", "missing.model"), "no-vocabulary"),
        (("DATA.VOCAB_SIZE", "101"), "vocabulary-settings"),
        (("DATA.TEXT_NORMALIZATION", "nfc"), "vocabulary-settings"),
        (("DATA.ROOT", "missing"), "cannot-open"),
        (("MODEL.NAME", "token_classification"), "configuration"),
        (("OPTIM.NUM_ITERATIONZ", "4"), "configuration"),
        (("DATA.MAX_CAPTION_LENGTH", "5", "MODEL.DECODER.MAX_DECODING_STEPS", "5"), "cut-captions"),
    ],
)
def test_settings_that_do_not_fit_are_found(configuration, tmp_path, override, kind):
    json_file = tmp_path / "findings.json"
    words = ["--no-images", "--json", json_file]
    doctor(configuration, *words, "--config-override", *override)
    findings = json.loads(json_file.read_text())["findings"]
    assert kind in {each["kind"] for each in findings if each["severity"] != "note"}


def test_no_images_opens_none(tree, configuration):
    for path in tree.root.rglob("*.jpg"):
        path.write_bytes(b"not an image")
    override = ["--config-override", "DATA.ROOT", tree.root]
    assert doctor(configuration, "--no-images", *override) == 0
    assert doctor(configuration, "--workers", 1, *override) == 1
