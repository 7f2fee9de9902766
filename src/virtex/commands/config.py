"""`virtex config`: what a run would use, before it runs."""

import argparse
import json

from virtex.commands.arguments import local_path
from virtex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `virtex config`."""
    parser.add_argument(
        "config", type=local_path, nargs="?", metavar="FILE", help="YAML of the run"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="pairs on top of the file, such as OPTIM.LR 1e-3",
    )
    parser.add_argument(
        "--json-schema", action="store_true", help="print the JSON schema of the file, for editors"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the resolved YAML, or the schema; raises `UserError`."""
    # Here, so that `--help` answers at once.
    from virtex.config import loading as settings
    from virtex.config.schema import Config

    if arguments.json_schema:
        if arguments.config is not None:
            raise UserError("--json-schema takes no FILE; leave one of them out")
        print(json.dumps(settings.json_schema(Config), indent=2))
    elif arguments.config is None:
        raise UserError("expected FILE, the YAML of a run, or --json-schema")
    else:
        print(settings.dump(settings.load(Config, arguments.config, arguments.overrides)), end="")
    return 0
