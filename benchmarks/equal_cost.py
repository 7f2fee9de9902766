"""What is learnt for the same number of operations, by tasks and settings: a table.

    python benchmarks/equal_cost.py RSICD runs/equal_cost               # screening
    python benchmarks/equal_cost.py RSICD runs/equal_cost --final --seeds 0 1 2 --rows captioning
    python benchmarks/equal_cost.py RSICD runs/equal_cost --table

RSICD is a tree in COCO's layout whose images lie in a directory for each class. Every row of
`equal_cost_rows.py` is trained for as many iterations as cost the operations of `--iterations`
iterations of bicaptioning, times `--cost`. Operations are those of matrix products and
convolutions, forward and backward, of the whole network with its heads, counted as they run on
batches of the data. Screening trains and judges on two parts of the training split; `--final`
trains on the training split and judges on the validation split. Finished runs are not repeated, and
interrupted ones resume, so that several calls, also at the same time, fill one table.
"""

import argparse
import fcntl
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from hashlib import blake2b
from pathlib import Path

import torch
from equal_cost_rows import ROWS, Row
from torch.utils.flop_counter import FlopCounterMode

import virtex
from virtex.build.data import open_data, training_batches
from virtex.build.model import build_objective, load_config
from virtex.distributed.world import World

HELD_OUT = 5
"""In screening, one image in so many is judged on instead of trained on."""
COUNTED = 4
"""How many batches are counted, evenly spaced over the run."""
PROTOCOLS = ("linear", "knn")
FINAL_PROTOCOLS = (*PROTOCOLS, "words", "low-shot")
RESULTS = "results.jsonl"
VOCABULARY = 1500


def prepare(source: Path, directory: Path, *, final: bool) -> Path:
    """The data of a stage, as COCO's layout and a directory for each class; links to images."""
    data = directory / ("final" if final else "screening")
    if (data / "complete").exists():
        return data
    names = {"train": "train", "val": "val"} if final else {"train": "train", "val": "train"}
    for split, origin in names.items():
        tree = json.loads((source / "annotations" / f"captions_{origin}2017.json").read_text())
        if not final:
            tree["images"] = [
                image
                for image in tree["images"]
                if _held_out(image["file_name"]) == (split == "val")
            ]
        ids = {image["id"] for image in tree["images"]}
        tree["annotations"] = [each for each in tree["annotations"] if each["image_id"] in ids]
        for image in tree["images"]:
            link = data / f"{split}2017" / image["file_name"]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to((source / f"{origin}2017" / image["file_name"]).resolve())
        (data / "annotations").mkdir(exist_ok=True)
        (data / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(tree))
        if not (data / split).exists():
            (data / split).symlink_to(f"{split}2017")
    run("tokenizer", data, "--output", data / "v.model", "--vocab-size", VOCABULARY)
    (data / "complete").touch()
    return data


def _held_out(name: str) -> bool:
    return blake2b(name.encode()).digest()[0] % HELD_OUT == 0


def run(*words: object) -> None:
    """Run a command of virtex."""
    print("$ virtex", *words, flush=True)
    subprocess.run([sys.executable, "-m", "virtex", *map(str, words)], check=True)


def settings_of(row: Row, data: Path, seed: int) -> dict[str, object]:
    """The settings that override the configuration of a row, but for its length."""
    common = {"RANDOM_SEED": seed, "DATA.ROOT": data, "DATA.TOKENIZER_MODEL": data / "v.model"}
    return common | row.settings


def words_of(settings: dict[str, object]) -> list[str]:
    """The settings as arguments of `--config-override`."""
    return [str(word) for pair in settings.items() for word in pair]


def operations(row: Row, data: Path, iterations: int) -> float:
    """The mean number of operations of a training step; a multiply-add counts as two."""
    settings = settings_of(row, data, 0) | {"OPTIM.NUM_ITERATIONS": iterations}
    config = load_config(_config(row), words_of(settings))
    opened = open_data(config)
    objective = build_objective(opened.config)
    world = World(rank=0, size=1, device=torch.device("cpu"))
    counts = []
    for part in range(COUNTED):
        first = 1 + part * iterations // COUNTED
        batches = training_batches(opened.config, opened, world, workers=0, first=first)
        with FlopCounterMode(display=False) as counter:
            losses = objective(next(batches).batch)
            torch.stack([loss.mean for loss in losses.values()]).sum().backward()
        batches.close()
        counts.append(counter.get_total_flops())
    return statistics.mean(counts)


def _config(row: Row) -> Path:
    return Path(virtex.__file__).parent / "configs" / f"{row.config}.yaml"


def cpu_seconds() -> float:
    """The seconds of computing by the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train(row: Row, run_directory: Path, data: Path, seed: int, iterations: int) -> Path:
    """Train a run, or what is missing of it; returns its last checkpoint."""
    last = run_directory / f"checkpoint_{iterations}.pth"
    if last.exists():
        return last
    begun = any(run_directory.glob("checkpoint_*.pth"))
    settings = settings_of(row, data, seed) | {"OPTIM.NUM_ITERATIONS": iterations}
    run(
        *("pretrain", "--config", row.config, "--serialization-dir", run_directory),
        *("--keep-recent", 1, "--checkpoint-every", math.ceil(iterations / 3)),
        *(("--resume-from", "latest") if begun else ()),
        *("--config-override", *words_of(settings)),
    )
    return last


def judge(checkpoint: Path, data: Path, cache: Path, *, final: bool) -> dict[str, float]:
    """The figures of a checkpoint, as `protocol/metric`."""
    figures = {}
    for protocol in FINAL_PROTOCOLS if final else PROTOCOLS:
        for result in virtex.evaluate(protocol, data, checkpoint, cache_dir=cache):
            figures[f"{protocol}/{result.metric}"] = result.value
    if final and virtex.load(checkpoint).can_caption:
        for result in virtex.evaluate("captioning", data, checkpoint):
            figures[f"captioning/{result.metric}"] = result.value
    return figures


def validation(run_directory: Path) -> dict[str, float]:
    """The losses of the last validation."""
    losses: dict[str, float] = {}
    for line in (run_directory / "scalars.jsonl").read_text().splitlines():
        values = json.loads(line)
        losses |= {name: value for name, value in values.items() if name.startswith("val/")}
    return losses


def fill(name: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train and judge one run, and append its line to the results."""
    directory: Path = arguments.directory
    data = prepare(arguments.data, directory, final=arguments.final)
    key = {"stage": data.name, "row": name, "seed": seed, "cost": arguments.cost}
    if any(key.items() <= line.items() for line in lines(directory)):
        return
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    run_directory = directory / f"{data.name}_{slug}_{seed}_{arguments.cost:g}"
    run_directory.mkdir(exist_ok=True)
    with (run_directory / "in_use").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another call trains it
        step = operations(ROWS[name], data, arguments.iterations)
        reference = operations(ROWS["bicaptioning"], data, arguments.iterations)
        iterations = round(arguments.iterations * arguments.cost * reference / step)
        used, begin = cpu_seconds(), time.monotonic()
        output = run_directory / "run"
        checkpoint = train(ROWS[name], output, data, seed, iterations)
        line = key | {
            "iterations": iterations,
            "operations": step * iterations,
            "seconds": round(time.monotonic() - begin),
            "cpu_seconds": round(cpu_seconds() - used),
            "threads": torch.get_num_threads(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
            **validation(output),
            **judge(checkpoint, data, directory / "features", final=arguments.final),
        }
        with (directory / RESULTS).open("a") as file:
            file.write(json.dumps(line) + "\n")


def lines(directory: Path) -> list[dict[str, object]]:
    """The results so far."""
    path = directory / RESULTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


SHOWN = {
    "linear": "linear/top1",
    "k-NN": "knn/top1_k20",
    "words": "words/mAP",
    "low-shot 1": "low-shot/top1_n1",
    "low-shot 16": "low-shot/top1_n16",
    "CIDEr": "captioning/CIDEr",
    "forward loss": "val/captioning_forward",
    "backward loss": "val/captioning_backward",
    "iterations": "iterations",
    "CPU minutes": "cpu_seconds",
}


def table(directory: Path) -> str:
    """The results as Markdown: means over seeds, with the standard deviation."""
    groups = defaultdict(list)
    for line in lines(directory):
        groups[line["stage"], line["row"], line["cost"]].append(line)
    rows = [
        "| stage | row | cost | seeds | " + " | ".join(SHOWN) + " |",
        "|---|---|---:|---:|" + "---:|" * len(SHOWN),
    ]
    for (stage, name, cost), found in sorted(groups.items()):
        cells = [_cell([line[key] for line in found if key in line], key) for key in SHOWN.values()]
        rows.append(f"| {stage} | {name} | {cost:g} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: list[float], key: str) -> str:
    if not values:
        return ""
    if key == "iterations":
        return f"{statistics.mean(values):,.0f}"
    if key == "cpu_seconds":
        return f"{statistics.mean(values) / 60:.1f}"
    digits = 3 if key.startswith("val/") else 1
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def main() -> None:
    """Fill the table, or print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="RSICD")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--cost", type=float, default=1.0)
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        for seed in arguments.seeds:
            for name in arguments.rows:
                fill(name, seed, arguments)
    print(table(arguments.directory))


if __name__ == "__main__":
    main()
