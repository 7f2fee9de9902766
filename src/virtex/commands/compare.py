"""`virtex compare`: mean ± sample standard deviation over runs that differ only in the seed."""

import argparse
import json
import shutil
import sys
from pathlib import Path

from virtex.commands.arguments import local_path
from virtex.commands.progress import Progress
from virtex.errors import UserError

_WIDTH = 100  # if the output is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex compare`."""
    parser.add_argument(
        "runs",
        type=local_path,
        nargs="+",
        metavar="RUN",
        help="run directories of `virtex pretrain`",
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="metrics to compare: scalars in scalars.jsonl, of which the last value counts, or "
        "numbers in results.json; for example val/loss or report/true (default: the validation "
        "losses and all numbers in results.json)",
    )
    parser.add_argument(
        "--reference",
        type=local_path,
        nargs="?",
        const=Path("docs/reference-curves"),
        metavar="FILE",
        help="compare each run with a reference curve instead, at any iteration: a file, or by "
        "default the curve in docs/reference-curves whose settings differ least",
    )
    parser.add_argument(
        "--json", action="store_true", help="print all values as JSON instead of a table"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read the runs, print the groups, and print warnings about the runs to standard error."""
    from virtex.experiments import comparison
    from virtex.experiments.table import as_plain_values, table

    if arguments.reference is not None:
        return _compare_with_reference(arguments)
    runs = []
    with Progress("reading", len(arguments.runs), "runs") as progress:
        for directory in arguments.runs:
            runs.append(comparison.read_run(directory))
            progress.advance()
    runs = comparison.name_data_apart(runs)
    groups = comparison.group(runs)
    metrics = comparison.choose_metrics(runs, arguments.metric)
    if arguments.json:
        print(json.dumps(as_plain_values(groups, metrics), indent=1))
    else:
        width = shutil.get_terminal_size((_WIDTH, 0)).columns
        print(table(groups, metrics, width))
        for line in comparison.explanations(groups, metrics):
            print(line)
    sys.stdout.flush()
    for note in comparison.notes(groups):
        print(f"virtex compare: warning: {note}", file=sys.stderr)
    return 0


def _compare_with_reference(arguments: argparse.Namespace) -> int:
    """Print whether each run is on track."""
    from virtex.experiments import reference
    from virtex.training.scalars import SCALARS, read_curves

    if arguments.metric or arguments.json:
        raise UserError("--reference compares all metrics as text; leave out --metric and --json")
    references = reference.read_references(arguments.reference)
    for run in arguments.runs:
        own = reference.run_settings(run)
        nearest = reference.find_reference(run, references)
        curves = read_curves(run / SCALARS)
        judgements = reference.judge(curves, nearest)
        print(f"{run}\nreference: {nearest.path}: {nearest.description}")
        different = reference.different_settings(own, nearest)
        if different:
            print(f"settings that differ: {', '.join(different)}")
        print(reference.comparison_table(curves, nearest))
        print("\n".join(map(str, judgements)))
    return 0
