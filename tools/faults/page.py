"""The page of the faults, docs/faults.md, from the records of the trials."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.faults.endings import SECOND_ROUND
from tools.faults.jobs import HUNG_SECONDS, LAUNCHERS, MORE_LAUNCHERS, Launcher
from tools.faults.kinds import KINDS, Kind

Record = dict[str, Any]
HEAD = """# Faults in training, and what became of the run

## First round

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
validation and a checkpoint every 5. Made by `python -m tools.faults.trials --write` from
`benchmarks/results/faults.jsonl`, which has a line for each trial.
"""
HEAD_2 = """## Second round

Another {trials} trials, of jobs of 1 to 3 processes ({launchers}),
each compared with a run in peace of as many processes. A job must besides leave no process and no
file in shared memory, and print no traceback of `multiprocessing`. From
`benchmarks/results/faults_2.jsonl`.
"""


FOUND = """What these found, and what was mended: the agent of a process that a signal had stopped
waited for it for ever, where the process was another machine's. A loader worker that died before
torch had noted its number was missed for 600 s. Where the last checkpoint could not be saved, the
other machine had already ended with status 0, and a restart would have waited for it in vain. A
process whose agent ended during the start-up did not notice (seen in the code, not in a trial).
The second jobs had been started so late that the first had come to its end: it is held now
meanwhile. And where the stopped rank 0 serves the store, no other rank can know what it does;
that the store does not answer is then what is said.
"""


FOUND_2 = """What the second round found:
- Before any fault was done to it, a run waited in a validation for a loader worker that hung in
  CPython's fork, while a thread of gloo was leaving Python. The callback that ran in that thread
  was removed. That trial was ended by hand, is not counted and was repeated. Trials up to 22 ran
  before that change.
- After SIGINT under torchrun the console has a traceback in three trials. Two are torchrun's alone;
  in the third our process was interrupted while it exited, in `virtex/data/shards/store.py`, beside
  torchrun's own. A finished command ignores interrupts since then; these trials were not repeated.
- Four semaphores stayed in shared memory after one trial, two of them half made. Other jobs ran and
  were killed at that time; whose they are is not known.
- Mistakes of the trials themselves: a fault removed too many shards, and jobs inherited from a
  shell's background that SIGINT and SIGHUP are ignored. These were repeated.
"""
STEPS = """## An error in the third step

The optimizer of the last rank raises in its third step, in every attempt: exit status and seconds
from the error until nothing of the job is alive (with a restart, from the error of the last
attempt), and what is left. By `python -m tools.faults.step_failures`, from
`benchmarks/results/step_failures.jsonl`.
"""


def step_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each number of workers, ranks and restarts."""
    columns = {
        "workers": "loader workers",
        "ranks": "ranks",
        "restarts": "restarts",
        "status": "exit status",
        "seconds": "seconds",
        "named": "rank and error named",
        "processes": "processes left",
        "files": "files in /dev/shm left",
    }
    rows = [" | ".join(columns.values()), "|".join("---:" for _ in columns)]
    rows += [" | ".join(str(record[name]) for name in columns) for record in records]
    return "\n".join(f"| {one} |" if one[0] != "-" else f"|{one}|" for one in rows)


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


def page(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
) -> str:
    """docs/faults.md."""
    parts = [
        section(HEAD, first, KINDS, LAUNCHERS),
        FOUND,
        section(HEAD_2, second, SECOND_ROUND, MORE_LAUNCHERS),
        FOUND_2,
        STEPS,
        step_table(steps),
        "",
    ]
    return "\n".join(parts)


def section(
    head: str,
    records: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, Kind],
    launchers: Sequence[Launcher],
) -> str:
    """What a round is, its table, and its trials with another outcome than is defined."""
    latest = {record["trial"]: record for record in records}
    before = [record for record in records if record is not latest[record["trial"]]]
    rows = [
        row(kind, [r for r in latest.values() if r["kind"] == kind.name]) for kind in kinds.values()
    ]
    names = "; ".join(launcher.name for launcher in launchers)
    failed = failures(list(latest.values()))
    return "\n".join(
        [
            head.format(trials=len(latest), launchers=names, hung=HUNG_SECONDS),
            "| fault | what is defined to happen | trials | outcome | at most (s) | equal |",
            "|---|---|---:|---|---:|---:|",
            *rows,
            "",
            "Trials in which something else happened than is defined:" + (failed or " none."),
            "",
            f"{len(before)} trials count by their repetition, after a mend:{failures(before)}",
            "",
        ]
    )


def failures(records: Sequence[Mapping[str, Any]]) -> str:
    """A point for each of the records with a problem."""
    return "".join(
        f"\n- {record['kind']} ({record['detail']}), {record['launcher']}: {record['outcome']},"
        f" {'equal' if record['equal'] else 'NOT EQUAL'}; {'; '.join(record['problems'])}"
        for record in records
        if record["problems"]
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
