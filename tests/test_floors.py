"""Who may import whom. Read from the source by `ast`, so that a hidden import counts too."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "virtex"

# Rooms from the ground up; a room is a folder or a top-level module of the package. One imports
# those of the floors below it.
FLOORS = [
    {"errors", "files"},
    {"config", "text", "models", "optim", "synthetic", "plots"},
    {"data"},
    {"decoding", "distributed", "checkpoints"},
    {"tasks"},
    {"training"},
    {"build"},
    {"inference", "exporting"},
    {"evaluation"},
    {"experiments"},
    {"commands"},
    {"cli"},
    {"__main__", "__init__", "slurm_task"},
]
MAY_IMPORT = {
    one: set().union(*FLOORS[:floor]) for floor, rooms in enumerate(FLOORS) for one in rooms
}
MAY_IMPORT["errors"] = MAY_IMPORT["files"] = {"errors"}
# Arrows that go up and await a split of their modules.
for one in ("checkpoints", "training"):
    MAY_IMPORT[one] |= {"build"}

# Library → the only files that may import it.
FENCES = {
    "sentencepiece": {"text/tokenizer.py"},
    "torchvision": {"models/networks.py"},
    "tensorboard": {"training/logger.py"},
    "yaml": {"config/yaml12.py"},
    "sklearn": set(),
    "submitit": {"experiments/slurm_task.py", "commands/slurm.py"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_stands_in_the_table():
    assert {room(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_runs_up_or_sideways(path):
    allowed = MAY_IMPORT[room(path)] | {room(path)}
    for module in imported_modules(path):
        package, _, inner = module.partition(".")
        if package != "virtex" or inner == "__version__":
            continue
        assert inner.split(".")[0] in allowed, f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_fenced_libraries_are_imported_in_one_place(path):
    name = str(path.relative_to(PACKAGE))
    for module in imported_modules(path):
        for library, files in FENCES.items():
            if library in module.split("."):
                assert name in files, f"{name} imports {module}"
