"""Quality of backbones after a few hundred iterations of each pretraining task on synthetic scenes.

Draws scenes, pretrains with every configuration of `configs/scenes` and several seeds, evaluates
the frozen features with a linear classifier of shapes, and prints `virtex compare` of all runs.
Work that the directory already holds is not repeated.

    python benchmarks/scene_tasks.py runs/scene_tasks
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "src" / "virtex" / "configs" / "scenes"
TASKS = (
    "bicaptioning",
    "captioning",
    "masked_lm",
    "token_classification",
    "multilabel_classification",
)


def virtex(*words: str | Path) -> None:
    """Run a command of virtex."""
    print("$ virtex", *words, flush=True)
    subprocess.run([sys.executable, "-m", "virtex", *map(str, words)], check=True)


def pretrain(directory: Path, task: str, seed: int, iterations: int) -> Path:
    """Train and evaluate one run; returns its directory."""
    run = directory / f"{task}_seed_{seed}"
    if (run / "report" / "results.json").exists():
        return run
    begun = (run / "config.yaml").exists()
    virtex(
        *("pretrain", "--config", CONFIGS / f"{task}.yaml", "--serialization-dir", run),
        *("--keep-recent", "1", *(("--resume-from", "latest") if begun else ())),
        *("--config-override", "RANDOM_SEED", str(seed)),
        *("DATA.ROOT", directory / "scenes", "DATA.TOKENIZER_MODEL", directory / "v.model"),
        *("OPTIM.NUM_ITERATIONS", str(iterations)),
    )
    virtex(
        *("evaluate", "scenes", "--checkpoint", run / f"checkpoint_{iterations}.pth"),
        *("--data", directory / "scenes", "--output", run / "report"),
    )
    return run


def main() -> None:
    """Train what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    arguments = parser.parse_args()
    scenes, vocabulary = arguments.directory / "scenes", arguments.directory / "v.model"
    if not scenes.exists():
        virtex(
            *("synthesize", scenes, "--train", "12000", "--size", "64", "--max-objects", "2"),
            *("--only", "coco", "--only", "imagefolder"),
        )
    if not vocabulary.exists():
        captions = scenes / "annotations" / "captions_train2017.json"
        virtex("tokenizer", captions, "--output", vocabulary, "--vocab-size", "250")
    begin = time.monotonic()
    runs = [
        pretrain(arguments.directory, task, seed, arguments.iterations)
        for seed in arguments.seeds
        for task in arguments.tasks
    ]
    print(f"{len(runs)} runs, {(time.monotonic() - begin) / 60:.1f} minutes")
    features = "report/linear_classifier_pretrained", "report/linear_classifier_random"
    virtex("compare", *runs, "--metric", *features, "val/loss")


if __name__ == "__main__":
    main()
