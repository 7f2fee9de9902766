"""Write the reference curve of a finished run: `python -m tools.reference_curve RUN OUTPUT`.

With `--labels DIR`, k-NN accuracies of the checkpoints that the run has kept are computed too
(`--keep-recent 0` keeps all), unless the run has evaluated them itself.
"""

import argparse
import json
import platform
from pathlib import Path

import torch

import virtex
from virtex.checkpoints.file import checkpoint_iteration, checkpoints
from virtex.experiments.reference import run_settings
from virtex.training.scalars import SCALARS, read_curves

_SHOWN = ("train/loss", "val/", "evaluate/")
_METRICS = ("top1_k20",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--labels", type=Path, help="labelled images for k-NN")
    parser.add_argument("--data", required=True, help="what the run was trained on, in words")
    parser.add_argument("--machine", required=True, help="what it ran on, in words")
    arguments = parser.parse_args()
    rows: dict[int, dict[str, float]] = {}
    for name, curve in read_curves(arguments.run / SCALARS).items():
        if name.startswith(_SHOWN):
            for iteration, value in curve.items():
                rows.setdefault(iteration, {})[name] = round(value, 6)
    if arguments.labels is not None:
        for path in checkpoints(arguments.run):
            iteration = checkpoint_iteration(path)
            assert iteration is not None
            for result in virtex.evaluate("knn", arguments.labels, path):
                if result.metric in _METRICS:
                    rows.setdefault(iteration, {})[f"evaluate/knn/{result.metric}"] = result.value
    settings = {
        key: value
        for key, value in run_settings(arguments.run).items()
        if not key.startswith(("DATA.ROOT", "DATA.TOKENIZER_MODEL", "DATA.CACHE_DIR", "EVALUATE."))
    }
    text = (
        f"{arguments.data}; {arguments.machine}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {max(rows)} iterations"
    )
    with arguments.output.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"reference": text, "settings": settings}) + "\n")
        for iteration, values in sorted(rows.items()):
            file.write(json.dumps({"iteration": iteration, **values}) + "\n")


if __name__ == "__main__":
    main()
