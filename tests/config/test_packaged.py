"""Configurations that come with the package are found by name, from any directory."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from virtex.build.model import load_config
from virtex.cli import main
from virtex.config import packaged

REPOSITORY = Path(__file__).parents[2]
BASE = "_base_bicaptioning_R_50_L1_H1024"


@pytest.mark.parametrize("name", ["base", BASE, f"configs/{BASE}.yaml", f"{BASE}.yaml"])
def test_a_name_stands_for_its_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert packaged.find(Path(name)) == packaged.DIRECTORY / f"{BASE}.yaml"
    assert load_config(Path(name)) == load_config(packaged.DIRECTORY / f"{BASE}.yaml")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base").write_text("_BASE_: scenes.yaml\nRANDOM_SEED: 7\n", encoding="utf-8")
    # A base is a path, not a name.
    Path("scenes.yaml").write_text("RANDOM_SEED: 8\n", encoding="utf-8")
    assert load_config(Path("base")).random_seed == 7


def test_an_unknown_name_says_where_names_are(capsys):
    assert main(["config", "bsae"]) == 2
    assert "bsae does not exist" in (error := capsys.readouterr().err)
    assert "virtex config --list" in error


def test_the_list_has_a_line_for_each(capsys):
    assert main(["config", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(packaged.DIRECTORY.rglob("*.yaml"))) + 1
    for line in lines:
        _, summary = line.split(maxsplit=1)
        assert summary[0].isupper() or summary[0].isdigit()
        assert summary.endswith(".")


def test_the_wheel_holds_them(tmp_path):
    pytest.importorskip("setuptools")
    build = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    copy = tmp_path / "copy"
    files = subprocess.run(
        ["git", "ls-files", "src", "pyproject.toml", "README.md", "LICENSE"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=copy, capture_output=True, check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    held = {name.removeprefix("virtex/configs/") for name in names if "virtex/configs/" in name}
    inside = packaged.DIRECTORY.rglob("*.*")
    assert held == {path.relative_to(packaged.DIRECTORY).as_posix() for path in inside}


def test_a_base_may_be_a_name_unless_a_file_beside_is_called_so(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("_BASE_: recipes/small\nRANDOM_SEED: 7\n", encoding="utf-8")
    small = load_config(Path("recipes/small"))
    assert load_config(path) == small.model_copy(update={"random_seed": 7})
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "small").write_text("AMP: false\n", encoding="utf-8")
    assert load_config(path).amp is False
