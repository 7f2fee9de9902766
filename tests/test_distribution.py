"""The distribution: its name, which is not the command's, its extras, and what it installs."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = [
    *(REPOSITORY / "src").rglob("*.py"),
    *REPOSITORY.glob("*.md"),
    *(REPOSITORY / "docs").rglob("*.md"),
]
INSTALLED = re.compile(r"pip install (?:-\S+ )*'?([\w.-]+)(?:\[([\w,]+)\])?")


def test_every_instruction_to_install_names_this_distribution_and_its_extras():
    found = [match for path in FILES for match in INSTALLED.findall(path.read_text("utf-8"))]
    assert {name for name, _ in found} == {PROJECT["name"], "."}
    named = {extra for _, extras in found for extra in extras.split(",") if extra}
    assert named == set(PROJECT["optional-dependencies"]) - {"dev"}


def test_the_development_extra_includes_the_others():
    extras = PROJECT["optional-dependencies"]
    users = ",".join(sorted(extras.keys() - {"dev"}))
    assert f"{PROJECT['name']}[{users}]" in extras["dev"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory with the content of the wheel that the source distribution builds."""
    directory = tmp_path_factory.mktemp("distribution")
    clone = directory / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "scripts", "docs"):
        shutil.copytree(REPOSITORY / name, clone / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "hubconf.py"):
        shutil.copy(REPOSITORY / name, clone)

    def build(kind, source):
        line = f"from setuptools.build_meta import {kind}; {kind}(sys.argv[1])"
        command = [sys.executable, "-c", f"import sys; {line}", directory]
        subprocess.run(command, cwd=source, check=True, capture_output=True)

    build("build_sdist", clone)
    with tarfile.open(next(directory.glob("*.tar.gz"))) as archive:
        archive.extractall(directory / "source", filter="data")
    build("build_wheel", next((directory / "source").iterdir()))
    with zipfile.ZipFile(next(directory.glob("*.whl"))) as archive:
        archive.extractall(directory / "installed")
    return directory / "installed"


def test_the_wheel_of_the_source_distribution_has_every_file_of_the_package(installed):
    def files(root):
        found = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix() for path in found if path.suffix != ".pyc"}

    assert files(installed / "virtex") == files(REPOSITORY / "src" / "virtex")
    [metadata] = installed.glob("*.dist-info")
    text = (metadata / "METADATA").read_text(encoding="utf-8")
    assert f"Version: {PROJECT['version']}\n" in text
    assert "Project-URL: Paper, https://" in text


@pytest.mark.cold
def test_an_installed_package_runs_in_an_empty_directory(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "virtex", "config", "base"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "transdec_postnorm::L1_H1024_A16_F4096" in done.stdout


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
