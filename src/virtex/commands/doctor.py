"""`virtex doctor`: what is wrong with data, configuration and machine, before a run."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtex.commands.arguments import add_int, add_quiet_argument, local_path
from virtex.commands.layout_arguments import add_layout_overrides
from virtex.commands.progress import Progress
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.config.schema import Config
    from virtex.doctor.checkup import Checkup
    from virtex.doctor.detected import DetectedData
    from virtex.doctor.findings import Finding

_IMAGES = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "target",
        metavar="DATA|CONFIG",
        help="data set (a table, or a directory of tables, texts, shards or COCO's layout), or the "
        "YAML configuration of a run",
    )
    parser.add_argument(
        "--config-override",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="settings that override those of the YAML file or describe the data, such as "
        "DATA.PIXEL_RANGE percentiles",
    )
    add_layout_overrides(parser.add_argument_group("layout of the data"))
    parser.add_argument(
        "--serialization-dir",
        type=local_path,
        default=Path("runs"),
        metavar="DIR",
        help="directory of the run, whose disk is checked (default: %(default)s)",
    )
    add_int(
        parser,
        "--images",
        "number of images of each split that are read at most, evenly spaced",
        default=_IMAGES,
    )
    parser.add_argument(
        "--no-images", action="store_true", help="check captions and files, and open no image"
    )
    add_int(
        parser, "--workers", "number of processes that read images", default=os.cpu_count() or 1
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure memory and speed of training steps and of the loader, which takes about a "
        "minute; needs a configuration",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=local_path, metavar="FILE", help="file for all findings as JSON"
    )
    output.add_argument(
        "--write-manifest",
        type=local_path,
        metavar="FILE",
        help="file for the ids of the training images without those that cannot be read, that "
        "occur twice or that are in both splits; for DATA.SUBSET_MANIFEST",
    )
    add_quiet_argument(output)


def run(arguments: argparse.Namespace) -> int:
    """Print all findings; returns 1 if there are problems."""
    from virtex.build.observer import Observer
    from virtex.checkpoints.file import Retention
    from virtex.doctor.checkup import Checkup, Options, examine
    from virtex.doctor.environment import environment_findings

    config, complete, found = _config(arguments)
    if arguments.measure and not complete:
        raise UserError("--measure needs the configuration of a run; `virtex init` writes one")
    options = Options(
        images=0 if arguments.no_images else arguments.images,
        workers=arguments.workers,
        reading=_reading(arguments.quiet),
        observer=Observer(notify=_notify, touched=False),
        directory=arguments.serialization_dir,
        retention=Retention(3),
        measure=arguments.measure,
    )
    checkup = Checkup([*found, *environment_findings()])
    if config is not None:
        examine(config, options, checkup, complete=complete)
    _print(checkup.findings, "" if config is None or config.data.sources else config.data.root)
    if arguments.json is not None:
        _write_json(arguments.json, arguments.target, checkup.findings)
    if arguments.write_manifest is not None:
        _write_manifest(arguments.write_manifest, checkup)
    return int(any(finding.severity == "problem" for finding in checkup.findings))


def _config(arguments: argparse.Namespace) -> "tuple[Config | None, bool, list[Finding]]":
    """The configuration, whether it is that of a run, and findings on it.

    It is None if the file cannot be read as settings at all.
    """
    from virtex.build.model import load_config
    from virtex.config import loading
    from virtex.config.packaged import find
    from virtex.config.schema import Config
    from virtex.doctor.findings import Finding

    target = Path(arguments.target)
    overrides = arguments.config_override
    if find(target).suffix not in (".yaml", ".yml"):
        from virtex.doctor.detected import nested
        from virtex.doctor.layout import detect_data

        overridden = list(loading.override_layers(overrides))
        given = {key: value for _, layer in overridden for key, value in loading.leaves(layer)}
        detected = detect_data(arguments.target, given)
        found = [Finding("layout", "note", line) for line in _layout_lines(detected)]
        layers = [("found in the data", nested(detected.settings)), *overridden]
        return loading.load_layers(Config, layers, arguments.target), False, found
    try:
        return load_config(target, overrides), True, []
    except UserError as error:
        found = [Finding("configuration", "problem", str(error))]
    try:
        return loading.load(Config, target, overrides), True, found
    except UserError:
        return None, True, found


def _layout_lines(detected: "DetectedData") -> Iterator[str]:
    """What was found out about the layout."""
    for key, value in detected.settings.items():
        yield f"{key}: {value} ({detected.reasons[key]})"
    yield from detected.notes


def _reading(quiet: bool) -> Any:
    @contextmanager
    def reading(label: str, total: int) -> Iterator[Any]:
        with Progress(label, total, "images", quiet=quiet) as progress:
            yield progress.advance

    return reading


def _notify(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(findings: "Sequence[Finding]", root: str) -> None:
    """Print findings, the worst first; paths are shown relative to `root`."""
    from virtex.doctor.findings import SEVERITIES

    directory = root and str(root if Path(root).is_dir() else Path(root).parent).rstrip("/") + "/"

    for severity in SEVERITIES:
        for finding in findings:
            if finding.severity == severity:
                print("\n".join(finding.lines(directory)))
    counts = [sum(each.severity == severity for each in findings) for severity in SEVERITIES]
    named = [
        f"{count} {severity}{'' if count == 1 else 's'}"
        for count, severity in zip(counts, SEVERITIES, strict=True)
    ]
    print(f"{', '.join(named)}; the data were only read")


def _write_json(path: Path, target: str, findings: "Sequence[Finding]") -> None:
    from virtex.doctor.findings import as_json
    from virtex.files import write_whole

    content = {"format": 1, "target": target, "findings": as_json(findings)}
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def _write_manifest(path: Path, checkup: "Checkup") -> None:
    from virtex.data.subset import write_or_remove

    manifest = checkup.manifest()
    if manifest is None:
        raise UserError("no training image is fit to train on, so no manifest was written")
    write_or_remove(path, manifest)
    print(
        f"written  {path}: {manifest.images:,} of {manifest.of:,} training images, for"
        " DATA.SUBSET_MANIFEST"
    )
