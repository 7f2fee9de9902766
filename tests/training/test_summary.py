"""What a run says at its end of what it has learnt."""

from pathlib import Path

import pytest

from virtex.training.summary import summarize

CHECKPOINT = Path("runs/mine/checkpoint_30.pth")


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (
            {10: 5.0, 20: 4.0, 30: 4.4},
            "overfitting since iteration 20; the validation loss is 10.0",
        ),
        ({10: 5.0, 20: 4.0, 30: 3.9}, "no overfitting so far"),
        ({30: 3.9}, "nothing tells whether"),
    ],
)
def test_overfitting_begins_at_the_lowest_validation_loss(losses, expected):
    lines = list(summarize({"val/loss": losses}, CHECKPOINT, captions=False))
    best = min(losses, key=losses.get)
    assert f"is {losses[best]:.4f}, after iteration {best}" in lines[0]
    assert expected in lines[1]
    assert lines[2] == f"next: virtex evaluate knn --data LABELLED_IMAGES --checkpoint {CHECKPOINT}"


def test_captions_are_counted_and_come_next():
    curves = {"samples/distinct_captions": {10: 3.0, 30: 48.4}}
    lines = list(summarize(curves, CHECKPOINT, captions=True))
    assert "after iteration 30, 48 %" in lines[0]
    assert lines[1].startswith(f"next: virtex caption IMAGES --checkpoint {CHECKPOINT}, or ")
