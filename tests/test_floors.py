"""Who may import whom. Read from the source by `ast`, so that a hidden import counts too."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "virtex"

OPEN = ("errors", "whole_file")
"""Rooms that every other may import."""

# Room → rooms that it may import beside itself and the open ones. A room is a folder or a top-level
# module of the package.
MAY_IMPORT = {
    "errors": set(),
    "whole_file": set(),
    "settings": {"settings_yaml", "settings_report"},
    "settings_yaml": set(),
    "settings_report": set(),
    "config": {"config_strings", "config_section"},
    "config_section": set(),
    "config_strings": set(),
    "text": set(),
    "data": set(),
    "models": set(),
    "optim": set(),
    "runtime": set(),
    "synthetic": set(),
    "training": {"optim", "runtime"},
    "decoding": {"models", "text"},
    "tasks": {"text", "models", "data", "decoding"},
    "export": {"models"},
    "evaluation": {"data", "training", "optim", "decoding", "runtime"},
    "build_tasks": {"config", "text", "data", "models", "decoding", "tasks"},
    "build": {
        *("config", "text", "data", "models", "optim", "runtime"),
        *("training", "decoding", "tasks", "evaluation", "build_tasks", "export"),
    },
}
MAY_IMPORT["restore"] = {*MAY_IMPORT}
MAY_IMPORT["pretrained"] = {*MAY_IMPORT}
MAY_IMPORT["checkpoint_arguments"] = {"argument_types", "pretrained"}
MAY_IMPORT["argument_types"] = set()
MAY_IMPORT["image_limit_arguments"] = {"argument_types", "data"}
MAY_IMPORT["caption_results"] = {"data", "decoding", "runtime"}
MAY_IMPORT["progress"] = {"runtime", "training"}
MAY_IMPORT["out_of_memory"] = {"config", "runtime"}
MAY_IMPORT["preparation"] = {*MAY_IMPORT}
JOBS = {"pretraining", "scenes_report", "sweeping", "comparison", "captioning_job", "packing"}
BELOW_JOBS = {*MAY_IMPORT}
MAY_IMPORT |= dict.fromkeys(JOBS, BELOW_JOBS)
MAY_IMPORT["slurm_task"] = {"runtime"}
MAY_IMPORT["comparison_table"] = {"comparison"}
MAY_IMPORT["commands"] = BELOW_JOBS | JOBS | {"comparison_table", "slurm_task"}
MAY_IMPORT["cli"] = {"commands"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = {"config", "pretrained"}

# Library → the only files that may import it.
FENCES = {
    "sentencepiece": {"text/tokenizer.py"},
    "torchvision": {"models/networks.py"},
    "tensorboard": {"runtime/journal.py"},
    "yaml": {"settings_yaml.py"},
    "sklearn": set(),
    "submitit": {"slurm_task.py", "commands/slurm.py"},
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
    allowed = MAY_IMPORT[room(path)] | {room(path), *OPEN}
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
