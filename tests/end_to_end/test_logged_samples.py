"""What a run leaves of the validation data in its logs and event files: LOG_SAMPLES."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ITERATIONS = ("OPTIM.NUM_ITERATIONS", "5", "OPTIM.LOOKAHEAD.USE", "false")


@pytest.mark.parametrize("kind", ["none", "text", "images"])
def test_logs_hold_no_more_than_was_asked_for(scenes, run, capsys, kind):
    assert scenes.pretrain(run, override=(*ITERATIONS, "LOG_SAMPLES", kind)) == 0
    console = capsys.readouterr().out
    assert f"(LOG_SAMPLES {kind})" in console
    assert "captions are distinct" in console
    board = EventAccumulator(str(run))
    board.Reload()
    assert ("val/samples" in board.Tags()["images"]) == (kind == "images")
    texts = [name for name in board.Tags()["tensors"] if name.startswith("val/samples")]
    assert bool(texts) == (kind != "none")
    given = json.loads(
        (scenes.root / "scenes/annotations/captions_val2017.json").read_text(encoding="utf-8")
    )
    captions = [one["caption"] for one in given["annotations"]]
    events = b"".join(path.read_bytes() for path in run.glob("events*")).decode("latin-1")
    logs = events + console + (run / "log_rank0.txt").read_text(encoding="utf-8")
    assert any(caption in logs for caption in captions) == (kind != "none")
