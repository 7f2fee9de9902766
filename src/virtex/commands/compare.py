"""`virtex compare`: mean ± sample standard deviation over runs that differ only in the seed."""

import argparse
import json
import shutil
import sys

from virtex.commands.arguments import local_path
from virtex.commands.progress import Progress

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
        "--json", action="store_true", help="print all values as JSON instead of a table"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read the runs, print the groups, and print warnings about the runs to standard error."""
    from virtex.experiments import comparison
    from virtex.experiments.table import as_plain_values, table

    runs = []
    with Progress("reading", len(arguments.runs), "runs") as progress:
        for directory in arguments.runs:
            runs.append(comparison.read_run(directory))
            progress.advance()
    groups = comparison.group(runs)
    metrics = comparison.choose_metrics(runs, arguments.metric)
    if arguments.json:
        print(json.dumps(as_plain_values(groups, metrics), indent=1))
    else:
        width = shutil.get_terminal_size((_WIDTH, 0)).columns
        print(table(groups, metrics, width))
    sys.stdout.flush()
    for note in comparison.notes(groups):
        print(f"virtex compare: warning: {note}", file=sys.stderr)
    return 0
