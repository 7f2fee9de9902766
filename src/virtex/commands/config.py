"""`virtex config`: the resolved configuration of a run."""

import argparse
import json

from virtex.commands.arguments import local_path
from virtex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `virtex config`."""
    parser.add_argument(
        "config", type=local_path, nargs="?", metavar="FILE", help="YAML configuration"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="settings that override the file, such as OPTIM.LR 1e-3",
    )
    parser.add_argument(
        "--json-schema",
        action="store_true",
        help="print the JSON schema of the configuration, for use in editors",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the resolved YAML, or the schema; raises `UserError`."""
    # Imported here, so that `--help` answers at once.
    from virtex.config import loading
    from virtex.config.schema import Config

    if arguments.json_schema:
        if arguments.config is not None:
            raise UserError("--json-schema does not take a FILE; remove one of them")
        print(json.dumps(loading.json_schema(Config), indent=2))
        return 0
    if arguments.config is None:
        raise UserError("expected a FILE with the YAML configuration, or --json-schema")

    from virtex.build.model import load_config

    print(loading.dump(load_config(arguments.config, arguments.overrides)), end="")
    return 0
