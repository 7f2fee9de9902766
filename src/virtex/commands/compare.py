"""`virtex compare`: runs that differ only in the seed, as mean ± sample standard deviation."""

import argparse
import json
import shutil
import sys

from virtex.commands.arguments import local_path

_WIDTH = 100  # where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex compare`."""
    parser.add_argument(
        "runs", type=local_path, nargs="+", metavar="RUN", help="run directory of `virtex pretrain`"
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="metrics to compare: scalars in scalars.jsonl, of which the last value counts, or "
        "numbers in results.json, such as val/loss or report/true (default: the validation losses "
        "and all results)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print all values as JSON instead of a table"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read the runs, print the groups, and on standard error what to know of them."""
    from virtex.experiments import comparison
    from virtex.experiments import table as comparison_table

    runs = [comparison.read_run(directory) for directory in arguments.runs]
    groups = comparison.group(runs)
    metrics = comparison.choose_metrics(runs, arguments.metric)
    if arguments.json:
        print(json.dumps(comparison_table.as_plain_values(groups, metrics), indent=1))
    else:
        width = shutil.get_terminal_size((_WIDTH, 0)).columns
        print(comparison_table.table(groups, metrics, width))
    sys.stdout.flush()
    for note in comparison.notes(groups):
        print(f"virtex compare: warning: {note}", file=sys.stderr)
    return 0
