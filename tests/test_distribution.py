"""The distribution's name differs from the command's: `virtex` on the index is another project."""

import re
import tomllib
from pathlib import Path

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
