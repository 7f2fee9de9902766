"""The page of the faults, docs/faults.md, from the records of the trials."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fault_jobs import HUNG_SECONDS, LAUNCHERS
from benchmarks.fault_kinds import KINDS, Kind

Record = dict[str, Any]
HEAD = """# Faults in training, and what became of the run

{trials} times a job of two processes was started, one thing was done to it at a random moment,
and it was watched: it has to end by itself or go on by itself within {hung} s. Then what was
damaged was mended and the run gone on with by `--resume-from latest`. In the end the weights, the
optimizer's state and all lines of losses must be those of a run in peace, bit for bit. Everything
is drawn from a seed: the order of the faults (each at least twice), the launcher ({launchers})
and the moment (in the start-up, after an iteration, inside a save).

Two CPU processes with a loader worker each, on one machine of two cores that did other work at
the same time, which the seconds show; they count from the fault until nothing of the job is alive
or, after a restart, the first new iteration. *Two machines* are two agents of one process each.
Twenty iterations of a RegNet on drawn scenes in shards, with dropout, augmentation, Lookahead, a
validation and a checkpoint every 5. Made by `python -m benchmarks.faults --write` from
`benchmarks/results/faults.jsonl`, which has a line for each trial.
"""


def line(record: Mapping[str, Any]) -> str:
    """A record for a person."""
    words = [f"{record['trial']:3}  {record['kind']} ({record.get('detail', '')})"]
    words += [f"{record.get('moment', '')}, {record['launcher']}: {record['outcome']}"]
    if "seconds" in record:
        words += [f"after {record['seconds']} s with {record['statuses']}"]
        words += [f"{record['restarts']} restarts, resumed from {record['resumed_from']}"]
        words += ["equal" if record["equal"] else "NOT EQUAL"]
    return "; ".join([*words, *record["problems"]])


def read(path: Path) -> list[Record]:
    """The records of a file, none where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(one) for one in text.splitlines()]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """docs/faults.md."""
    latest = {record["trial"]: record for record in records}
    again = len(records) - len(latest)
    failed = [record for record in latest.values() if record["problems"]]
    rows = [
        row(kind, [r for r in latest.values() if r["kind"] == kind.name]) for kind in KINDS.values()
    ]
    launchers = ", ".join(launcher.name for launcher in LAUNCHERS)
    return "\n".join(
        [
            HEAD.format(trials=len(latest), launchers=launchers, hung=HUNG_SECONDS),
            "| fault | what is defined to happen | trials | outcome | at most (s) | equal |",
            "|---|---|---:|---|---:|---:|",
            *rows,
            "",
            f"{len(failed)} of these {len(latest)} trials failed"
            + (":" if failed else ".")
            + f" {again} are repetitions after a mend.",
            *[f"\n- {line(record)}" for record in failed],
            "",
        ]
    )


def row(kind: Kind, records: Sequence[Mapping[str, Any]]) -> str:
    outcomes: dict[str, int] = {}
    for record in records:
        outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
    said = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items()))
    tested = [record for record in records if "seconds" in record]
    seconds = max((f"{record['seconds']:.0f}" for record in tested), key=int, default="")
    same = f"{sum(record['equal'] for record in tested)}/{len(tested)}"
    return f"| {kind.name} | {kind.promise} | {len(records)} | {said} | {seconds} | {same} |"
