"""Search one reader, or all, for inputs that crash it: `python -m tests.fuzz --minutes 10`.

A finding is a line, and its input is written to --output. The same line's figures make the input
again: `python -m tests.fuzz --target images --seed 3 --number 1234`.
"""

import argparse
import json
import time
from pathlib import Path

from tests.fuzz.campaign import BATCH, campaign, content
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other inputs")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each target")
    parser.add_argument("--number", type=int, help="this input alone")
    parser.add_argument("--output", type=Path, default=Path("findings"), help="where inputs go")
    arguments = parser.parse_args()
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    found = [search(name, arguments) for name in names]
    return 1 if any(found) else 0


def search(name: str, arguments: argparse.Namespace) -> int:
    """The number of findings, which are told and kept."""
    target, seed = TARGETS[name](), arguments.seed
    began, tried, found = time.monotonic(), 0, 0
    while not tried or (
        arguments.number is None and time.monotonic() - began < 60 * arguments.minutes
    ):
        first, count = (tried, BATCH) if arguments.number is None else (arguments.number, 1)
        for finding in campaign(target, seed, first, count):
            arguments.output.mkdir(parents=True, exist_ok=True)
            kept = arguments.output / f"{name}-{seed}-{finding.number}"
            kept.write_bytes(content(target, seed, finding.number))
            print(f"{finding}; kept as {kept}", flush=True)
            found += 1
        tried += count
    seconds = round(time.monotonic() - began, 1)
    figures = {"target": name, "seed": seed, "inputs": tried, "seconds": seconds, "findings": found}
    print(json.dumps({"benchmark": "fuzz"} | figures), flush=True)
    return found


raise SystemExit(main())
