"""A few of the faults of `tools/faults/trials.py`, and its page."""

from dataclasses import replace

import pytest
from tools.faults import trials as faults
from tools.faults.endings import SECOND_ROUND
from tools.faults.kinds import KINDS

from virtex.checkpoints import file as checkpoint


def test_the_page_is_what_the_records_give():
    records = map(faults.read, (faults.RESULTS, faults.RESULTS_2, faults.STEPS))
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(*records)


def test_every_kind_is_drawn_twice():
    drawn = faults.names(50, seed=0)
    assert len(drawn) == 50
    assert all(drawn.count(name) >= 2 for name in KINDS)
    assert drawn == faults.names(50, seed=0)
    assert drawn != faults.names(50, seed=1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    faults.prepare(root)
    return faults.undisturbed(root)


# `test_failing`, `test_launch`, `test_resume` and `test_remote_shards` hold smaller cases.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "launcher", "outcome"),
    [
        ("exception in a step", "torchrun, 1 restart", "recovered"),
        ("slow store with errors", "torchrun", "went on"),
        ("kill -9 of rank 1", "torchrun, 1 restart", "recovered"),
        ("newest checkpoint cut", "torchrun", "ended"),
        ("SIGTERM, at once SIGKILL", "torchrun", "ended"),
        ("exception in a step", "torchrun, 3 processes, 1 restart", "recovered"),
        ("SIGTERM, at once SIGKILL", "torchrun, 3 processes", "ended"),
    ],
)
def test_a_run_is_the_same_after_a_fault(reference, name, launcher, outcome):
    kind = (KINDS | SECOND_ROUND)[name]
    moments = kind.moments if kind.moments == ("start",) else ("iteration",)
    kind = replace(kind, moments=moments, last=min(kind.last, 12))
    (chosen,) = [one for one in faults.MORE_LAUNCHERS if one.name == launcher]
    root = reference.parent.parent
    record = faults.run_trial(0, kind, 0, root, [chosen])
    assert (record["outcome"], record["problems"]) == (outcome, [])
    assert record["equal"]
    assert record["seconds"] < faults.HUNG_SECONDS


@pytest.mark.slow
def test_a_difference_is_found(reference, tmp_path):
    """So that `equal` can be false."""
    last = checkpoint.checkpoint_path(tmp_path, faults.ITERATIONS)
    state = checkpoint.load(checkpoint.checkpoint_path(reference, faults.ITERATIONS))
    next(iter(state["model"].values())).mul_(1 + 1e-6)
    checkpoint.save(last, state)
    lines = (reference / "scalars.jsonl").read_text(encoding="utf-8")
    (tmp_path / "scalars.jsonl").write_text(lines, encoding="utf-8")
    assert faults.differences(tmp_path, reference) == ["model differs"]
    (tmp_path / "scalars.jsonl").write_text(lines + lines, encoding="utf-8")
    assert faults.differences(tmp_path, reference) == ["model differs", "scalars.jsonl differs"]
