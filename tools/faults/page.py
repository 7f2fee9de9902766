"""The page of the faults, docs/faults.md, from the records of the trials."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.faults.endings import SECOND_ROUND
from tools.faults.jobs import HUNG_SECONDS, LAUNCHERS, MORE_LAUNCHERS, Launcher
from tools.faults.kinds import KINDS, Kind

Record = dict[str, Any]
HEAD = """# What faults do to a training job

## First round

{trials} times, a job of two processes was started and one fault was injected at a random moment.
The job then had to end or to recover by itself within {hung} s. After that the fault was undone and
the run resumed with `--resume-from latest`. The final weights, the optimizer's state and every
logged loss must equal those of an undisturbed run, bit for bit. Everything is drawn from a seed:
the order of the faults (each at least twice), the launcher ({launchers})
and the moment (during start-up, after an iteration, inside a save).

The job runs two CPU processes with one loader worker each, on a machine of two cores that did other
work at the same time, which the seconds show. Seconds count from the fault until no process of the
job is alive or, after a restart, until the first new iteration. *2 machines* are two agents with
one process each. The run is twenty iterations of a RegNet on drawn scenes in shards, with dropout,
augmentation, Lookahead, and a validation and a checkpoint every 5 iterations. This page is written
by `python -m tools.faults.trials --write` from `benchmarks/results/faults.jsonl`, which has a line
for each trial.
"""
HEAD_2 = """## Second round

Another {trials} trials, with jobs of 1 to 3 processes ({launchers}),
each compared with an undisturbed run of as many processes. In addition, a job must leave no process
and no file in shared memory behind, and must print no traceback of `multiprocessing`. From
`benchmarks/results/faults_2.jsonl`.
"""


FOUND = """These trials found the following defects, which have been fixed:
- The agent waited forever for a process that a signal had stopped, if that process belonged to
  another machine.
- A loader worker that died before torch had noted its process id went unnoticed for 600 s.
- Where the last checkpoint could not be saved, the other machine had already ended with status 0,
  and a restart would have waited for it in vain.
- A process whose agent ended during start-up did not notice (seen in the code, not in a trial).
- The trial itself started the second job so late that the first had finished. The first job is now
  paused meanwhile.
- Where the stopped rank 0 serves the store, no other rank can know what it was doing. The error
  message now says that the store does not answer.
"""


FOUND_2 = """What the second round found:
- Before any fault was injected, one run hung in a validation: it waited for a loader worker that
  was stuck in CPython's fork, while a thread of gloo was leaving Python. The callback that ran in
  that thread was removed. That trial was ended by hand, is not counted and was repeated. Trials up
  to 22 ran before that change.
- After SIGINT under torchrun the console shows a traceback in three trials. Two come from torchrun
  alone; in the third, our process was interrupted during its exit, in
  `virtex/data/shards/store.py`, in addition to torchrun's own. A finished command has ignored
  interrupts since then; these trials were not repeated.
- Four semaphores stayed in shared memory after one trial, two of them only partly created. Other
  jobs ran and were killed at that time; it is not known which job they belong to.
- Two mistakes were made by the trials themselves: one fault removed too many shards, and jobs
  inherited from a shell's background that SIGINT and SIGHUP are ignored. These were repeated.
"""
STEPS = """## An error in the third step

The optimizer of the last rank raises an error in its third step, in every attempt. The table shows
the exit status, the seconds from the error until no process of the job is alive (with a restart:
from the error of the last attempt), and what remains. Written by
`python -m tools.faults.step_failures`, from `benchmarks/results/step_failures.jsonl`.
"""
RECORDED = {"went on": "continued", "nothing says": "the output lacks", "were left": "remained"}
"""The wording of the records, which are kept as they are, and that of the page."""


def step_table(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of the jobs, with a row for each number of workers, ranks and restarts."""
    columns = {
        "workers": "loader workers",
        "ranks": "ranks",
        "restarts": "restarts",
        "status": "exit status",
        "seconds": "seconds",
        "named": "rank and error named",
        "processes": "processes remaining",
        "files": "files remaining in /dev/shm",
    }
    rows = [" | ".join(columns.values()), "|".join("---:" for _ in columns)]
    rows += [" | ".join(str(record[name]) for name in columns) for record in records]
    return "\n".join(f"| {one} |" if one[0] != "-" else f"|{one}|" for one in rows)


def line(record: Mapping[str, Any]) -> str:
    """A record as a line for the console."""
    words = [f"{record['trial']:3}  {record['kind']} ({record.get('detail', '')})"]
    words += [f"{record.get('moment', '')}, {record['launcher']}: {record['outcome']}"]
    if "seconds" in record:
        words += [f"after {record['seconds']} s with {record['statuses']}"]
        words += [f"{record['restarts']} restarts, resumed from {record['resumed_from']}"]
        words += ["equal" if record["equal"] else "NOT EQUAL"]
    return "; ".join([*words, *record["problems"]])


def read(path: Path) -> list[Record]:
    """The records of a file; an empty list if it does not exist."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(one) for one in text.splitlines()]


def page(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
) -> str:
    """The text of docs/faults.md."""
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
    """A round: its introduction, its table, and the trials that did not behave as expected."""
    latest = {record["trial"]: record for record in records}
    before = [record for record in records if record is not latest[record["trial"]]]
    rows = [
        row(kind, [r for r in latest.values() if r["kind"] == kind.name]) for kind in kinds.values()
    ]
    names = "; ".join(launcher.name for launcher in launchers)
    failed = failures(list(latest.values()))
    text = "\n".join(
        [
            head.format(trials=len(latest), launchers=names, hung=HUNG_SECONDS),
            "| fault | expected behaviour | trials | outcome | at most (s) | equal |",
            "|---|---|---:|---|---:|---:|",
            *rows,
            "",
            "Trials that did not behave as expected:" + (failed or " none."),
            "",
            f"{len(before)} trials were repeated after a fix; the table counts the repetition:"
            + failures(before),
            "",
        ]
    )
    for recorded, wording in RECORDED.items():
        text = text.replace(recorded, wording)
    return text


def failures(records: Sequence[Mapping[str, Any]]) -> str:
    """A list item for each record with a problem."""
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
    counts = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items()))
    tested = [record for record in records if "seconds" in record]
    seconds = max((f"{record['seconds']:.0f}" for record in tested), key=int, default="")
    same = f"{sum(record['equal'] for record in tested)}/{len(tested)}"
    return f"| {kind.name} | {kind.promise} | {len(records)} | {counts} | {seconds} | {same} |"
