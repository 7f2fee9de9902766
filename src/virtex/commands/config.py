"""`virtex config`: the resolved configuration of a run."""

import argparse
import json

from virtex.commands.arguments import local_path
from virtex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `virtex config`."""
    parser.add_argument(
        "config",
        type=local_path,
        nargs="?",
        metavar="FILE",
        help="YAML configuration, or the name of one that comes with the package",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="settings that override the file, such as OPTIM.LR 1e-3",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the configurations that come with the package, which --config takes by name",
    )
    parser.add_argument(
        "--json-schema",
        action="store_true",
        help="print the JSON schema of the configuration, for use in editors",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the resolved YAML, the names of configurations or the schema; raises `UserError`."""
    # Imported here, so that `--help` answers at once.
    from virtex.config import loading, packaged
    from virtex.config.schema import Config

    asked = [
        flag
        for flag in ("--list", "--json-schema")
        if vars(arguments)[flag.removeprefix("--").replace("-", "_")]
    ]
    if len(asked) + (arguments.config is not None) > 1:
        given = ["FILE"] * (arguments.config is not None) + asked
        raise UserError(f"{' and '.join(given)} do not go together; leave all but one out")
    if arguments.list:
        found = packaged.configurations()
        width = max(map(len, found))
        for name, path in found.items():
            print(f"{name:<{width}}  {packaged.summary(path)}")
        return 0
    if arguments.json_schema:
        print(json.dumps(loading.json_schema(Config), indent=2))
        return 0
    if arguments.config is None:
        raise UserError(
            "expected a FILE with the YAML configuration, or a name that --list shows, or "
            "--json-schema"
        )

    from virtex.build.model import load_config

    print(loading.dump(load_config(arguments.config, arguments.overrides)), end="")
    return 0
