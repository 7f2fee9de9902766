"""The configurations that come with the package, which can be named instead of a path."""

import os
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / "configs"
_SHORT = {"base": "_base_bicaptioning_R_50_L1_H1024"}


def configurations() -> dict[str, Path]:
    """The files by name, such as `scenes/bicaptioning`."""
    found = {
        path.relative_to(DIRECTORY).with_suffix("").as_posix(): path
        for path in sorted(DIRECTORY.rglob("*.yaml"))
    }
    return {short: found[name] for short, name in _SHORT.items()} | found


def find(path: Path) -> Path:
    """`path` if it exists, or else the configuration of the package that it names, if it does.

    A name may have `configs/` before it and `.yaml` after it, as the path in a clone once had. The
    name that the published code gave to the settings in a run directory, `pretrain_config.yaml` or
    `.yml`, stands for `config.yaml`.
    """
    if path.exists():
        return path
    if path.stem == "pretrain_config" and (resolved := path.with_name("config.yaml")).exists():
        return resolved
    return named(path.as_posix()) or path


def named(name: str) -> Path | None:
    """The configuration of the package with this name, if there is one."""
    return configurations().get(name.removeprefix("configs/").removesuffix(".yaml"))


def shown(path: Path) -> str:
    """The name of a file in messages, without the `..` that a chain of bases accumulates."""
    name = os.path.normpath(path)
    inside = os.path.relpath(name, DIRECTORY)
    return name if inside.startswith(os.pardir) else f"configs/{inside}"


def summary(path: Path) -> str:
    """The line about a configuration of the package: the comment in its second line."""
    return path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
