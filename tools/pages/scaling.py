"""The costs of training the base configuration on 1 to 512 GPUs: tables of `docs/scaling.md`.

    python -m tools.pages.scaling [--write | --json] [--cores-per-gpu 16 …]

Operations, parameters and sizes are counted on the real model; measurements are read from
`benchmarks/results`; everything else is an assumption, which a flag changes.
"""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from tools.pages import model_costs

from virtex.config import loading as settings
from virtex.config.schema import Config

REPOSITORY = model_costs.REPOSITORY
PAGE = REPOSITORY / "docs" / "scaling.md"
RESULTS = REPOSITORY / "benchmarks" / "results" / "2026-11-cpu-2-cores.jsonl"
BASE = model_costs.CONFIGS / "_base_bicaptioning_R_50_L1_H1024.yaml"
COCO_IMAGES = 118_287
BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"
SCENARIOS = ((1, 256), (8, 256), (8, 1024), (64, 256), (64, 8192), (512, 8192), (512, 65536))
"""Pairs of GPUs and images per step over all of them."""
IN_NODE_GB_S = {"NVLink 3 (A100)": 300.0, "PCIe 4 x16": 32.0}
BETWEEN_NODES_GB_S = {
    "400 Gb/s": 50.0,
    "200 Gb/s": 25.0,
    "100 Gb/s": 12.5,
    "10 GbE": 1.25,
}
"""GB/s in one direction per node; inside a node, per GPU."""
PREFETCHED_BATCHES = 2  # of each worker: torch's default
BUCKET_MB = 25  # of gradients, DDP's default
FORWARD_SHARE = 1 / 3  # of a step's operations; backward is twice forward


@dataclass(frozen=True)
class Assumptions:
    """Assumptions that we did not measure, with units in their names; see `SOURCES`."""

    peak_tflops: float = 312.0
    utilisation: float = 0.19
    step_floor_ms: float = 40.0
    gpus_per_node: int = 8
    cores_per_gpu: int = 16
    node_link_gbit_s: float = 200.0
    link_efficiency: float = 0.8
    hop_us: float = 5.0
    gpu_mtbf_hours: float = 50_000.0
    disk_gb_s: float = 1.0
    device_copy_gb_s: float = 20.0
    requeue_seconds: float = 120.0


SOURCES = {
    "peak_tflops": "A100, dense bfloat16: NVIDIA's data sheet",
    "utilisation": "NVIDIA DeepLearningExamples, ResNet-50 v1.5, PyTorch, A100, batch 256, mixed "
    "precision: 2,470 images/s of 24.3 GFLOP",
    "step_floor_ms": "the same page: the forward pass takes 13 to 14 ms for 1 to 16 images "
    "(V100), and a step three times that: the time to launch the kernels",
    "gpus_per_node": "DGX A100",
    "cores_per_gpu": "DGX A100: 128 cores; cloud machines often have 12",
    "node_link_gbit_s": "one InfiniBand HDR port per node; DGX A100 has eight",
    "link_efficiency": "guess",
    "hop_us": "guess: one message between nodes, including NCCL's overhead",
    "gpu_mtbf_hours": "Llama 3 (2024): 419 unexpected stops in 54 days of 16,384 GPUs",
    "disk_gb_s": "guess: one writer to a shared file system",
    "device_copy_gb_s": "guess: GPU to pinned host memory over PCIe 4",
    "requeue_seconds": "SLURM's delay before a requeued job may start, seen on a cluster of one",
}


@dataclass(frozen=True)
class Measured:
    """Figures that are counted on the model or read from `benchmarks/results`."""

    parameters: int
    gflop_per_image: float
    images: int
    iterations: int
    pixel_bytes: int
    loader_images_per_core: float
    jpeg_bytes: int
    small_jpeg_bytes: int
    checkpoint_bytes: int
    write_seconds: float
    start_seconds: float
    annotations_mb: int
    process_mb: int

    @property
    def gradient_bytes(self) -> int:
        """Gradients are float32 in every precision."""
        return 4 * self.parameters


@dataclass(frozen=True)
class Step:
    """One scenario: times of a step in ms; rates over all GPUs."""

    gpus: int
    batch: int
    compute: float
    network: float
    exposed: float
    step: float
    images_per_second: float
    hours: float
    gpu_hours: float
    cores: float
    node_store_mb_s: float
    efficiency: float
    limit: str


def results(benchmark: str) -> list[dict[str, Any]]:
    """The recorded lines of one benchmark."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    return [found for line in lines if (found := json.loads(line))["benchmark"] == benchmark]


def measured() -> Measured:
    """The measurements of the base configuration."""
    config = settings.load(Config, BASE)
    counted = model_costs.costs(config)
    loader = next(line for line in results("loader") if line["workers"] == 2)
    annotations = results("annotations_memory")[-1]
    jpeg, saved, start = (results(f"scaling_{name}")[-1] for name in ("jpeg", "save", "start"))
    return Measured(
        parameters=counted.parameters,
        gflop_per_image=(counted.forward + counted.backward) / 1e9,
        images=config.optim.batch_size * config.optim.iterations,
        iterations=config.optim.iterations,
        pixel_bytes=3 * config.data.image_crop_size**2,
        loader_images_per_core=loader["images_per_second"] / loader["workers"],
        jpeg_bytes=jpeg["mean_bytes"],
        small_jpeg_bytes=jpeg["mean_bytes_short_side_320_quality_90"],
        checkpoint_bytes=saved["bytes"],
        write_seconds=saved["write_seconds"],
        start_seconds=start["seconds"],
        annotations_mb=annotations["cost_of_the_job_mb"],
        process_mb=annotations["job_without_them_mb"],
    )


def ring_ms(size: float, gpus: int, gb_s: float, assumed: Assumptions) -> float:
    """An all-reduce of `size` bytes in a ring, bucket by bucket; the hops of each are in turn."""
    if gpus == 1:
        return 0.0
    moved = 2 * (gpus - 1) / gpus * size / (gb_s * assumed.link_efficiency * 1e9)
    buckets = math.ceil(size / (BUCKET_MB * 2**20))
    return (moved + buckets * 2 * (gpus - 1) * assumed.hop_us * 1e-6) * 1e3


def step(gpus: int, batch: int, known: Measured, assumed: Assumptions) -> Step:
    """The times and rates of a step; the backward pass hides part of the exchange."""
    local = batch / gpus
    rate = assumed.peak_tflops * assumed.utilisation * 1e3  # GFLOP/s
    counted = local * known.gflop_per_image / rate * 1e3
    compute = max(counted, assumed.step_floor_ms)
    inside = gpus <= assumed.gpus_per_node
    link = IN_NODE_GB_S["NVLink 3 (A100)"] if inside else assumed.node_link_gbit_s / 8
    network = ring_ms(known.gradient_bytes, gpus, link, assumed)
    last_bucket = ring_ms(BUCKET_MB * 2**20, gpus, link, assumed)
    exposed = max(last_bucket, network - (1 - FORWARD_SHARE) * compute) if gpus > 1 else 0.0
    device = compute + exposed
    loader = local / (assumed.cores_per_gpu * known.loader_images_per_core) * 1e3
    total = max(device, loader)
    parts = {
        "launching kernels" if compute > counted else "compute": compute,
        "network": exposed,
        "loader": loader - device,
    }
    per_second = batch / total * 1e3
    nodes = math.ceil(gpus / assumed.gpus_per_node)
    seconds = known.images / per_second
    return Step(
        gpus=gpus,
        batch=batch,
        compute=compute,
        network=network,
        exposed=exposed,
        step=total,
        images_per_second=per_second,
        hours=seconds / 3600,
        gpu_hours=seconds * gpus / 3600,
        cores=per_second / gpus / known.loader_images_per_core,
        node_store_mb_s=per_second / nodes * known.jpeg_bytes / 1e6,
        efficiency=per_second / gpus * known.gflop_per_image / rate,
        limit=max(parts, key=lambda name: parts[name]),
    )


def best_interval(blocked: float, mtbf: float) -> float:
    """Young's formula: seconds between saves that block training for `blocked` seconds each."""
    return math.sqrt(2 * blocked * mtbf)


def lost_share(interval: float, blocked: float, mtbf: float, restart: float) -> float:
    """Of all time: for saves, for what was not saved, and for starting again."""
    return blocked / interval + (interval / 2 + restart) / mtbf


def blocks(known: Measured, assumed: Assumptions) -> dict[str, str]:
    """The tables of the page by name, as Markdown."""
    steps = [step(gpus, batch, known, assumed) for gpus, batch in SCENARIOS]
    return {
        "measured": _measured_table(known),
        "assumed": _assumed_table(assumed),
        "scale": _scale_table(steps),
        "links": _links_table(known, assumed),
        "memory": _memory_table(steps, known),
        "stops": _stops_table(known, assumed),
    }


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, last: Literal["text", "figure"]
) -> str:
    figures = len(header) - (2 if last == "text" else 1)
    rule = "|".join(["---", *["---:"] * figures, *(["---"] if last == "text" else [])])
    lines = [header, *rows]
    first, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([first, f"|{rule}|", *rest])


def _measured_table(known: Measured) -> str:
    model, results_file = "counted on the model", "`benchmarks/results`"
    rows = [
        ("images of the published run", f"{known.images / 1e6:.0f} M", "256 × 500,000"),
        ("operations per image", f"{known.gflop_per_image:.1f} GFLOP", f"{model}, 30 tokens"),
        ("parameters", f"{known.parameters / 1e6:.1f} M", model),
        ("gradients of a step", f"{known.gradient_bytes / 1e6:.0f} MB", "float32"),
        (
            "loader",
            f"{known.loader_images_per_core:.0f} images/s per core",
            f"{results_file}: two workers on two cores",
        ),
        ("a COCO file", f"{known.jpeg_bytes / 1e3:.0f} kB", f"{results_file}: mean of 159"),
        (
            "the same at short side 320, quality 90",
            f"{known.small_jpeg_bytes / 1e3:.0f} kB",
            results_file,
        ),
        (
            f"all {COCO_IMAGES:,} training images of COCO",
            f"{COCO_IMAGES * known.jpeg_bytes / 1e9:.1f} GB",
            f"{COCO_IMAGES * known.small_jpeg_bytes / 1e9:.1f} GB at the small size",
        ),
        ("a decoded image", f"{known.pixel_bytes / 1e3:.0f} kB", "uint8, 3 × 224 × 224"),
        (
            "checkpoint",
            f"{known.checkpoint_bytes / 1e6:.0f} MB",
            f"{results_file}: weights, momentum, Lookahead's slow weights",
        ),
        ("writing and flushing it", f"{known.write_seconds:.1f} s", f"{results_file}, local disk"),
        (
            "start-up until model and optimizer are built",
            f"{known.start_seconds:.1f} s",
            results_file,
        ),
        (
            "captions and ids, per process",
            f"{known.annotations_mb} MB",
            f"{results_file}: whole COCO",
        ),
        (
            "a process with 4 workers, without captions",
            f"{known.process_mb} MB",
            f"{results_file}: no model",
        ),
    ]
    return _table(("measured", "figure", "how"), rows, last="text")


def _assumed_table(assumed: Assumptions) -> str:
    rows = [
        (f"`--{name.replace('_', '-')}`", f"{value:,g}", SOURCES[name])
        for name, value in asdict(assumed).items()
    ]
    return _table(("assumed", "figure", "source"), rows, last="text")


def _scale_table(steps: Sequence[Step]) -> str:
    header = (
        *("GPUs", "batch", "per GPU", "compute (ms)", "all-reduce (ms)", "not hidden (ms)"),
        *("step (ms)", "images/s", "efficiency", "whole run", "GPU hours"),
        *("loader cores per GPU", "store, per node (MB/s)", "limit"),
    )
    rows = [
        (
            f"{one.gpus}",
            f"{one.batch:,}",
            f"{one.batch // one.gpus}",
            f"{one.compute:.0f}",
            f"{one.network:.1f}",
            f"{one.exposed:.1f}",
            f"{one.step:.0f}",
            f"{one.images_per_second:,.0f}",
            f"{one.efficiency:.0%}",
            f"{one.hours:.1f} h",
            f"{one.gpu_hours:,.0f}",
            f"{one.cores:.1f}",
            f"{one.node_store_mb_s:,.0f}",
            one.limit,
        )
        for one in steps
    ]
    return _table(header, rows, last="text")


def _links_table(known: Measured, assumed: Assumptions) -> str:
    counts = (2, 8, 64, 512)
    header = ("link, one direction", "GB/s", *(f"{n} GPUs (ms)" for n in counts))
    rows = []
    for name, speed in (IN_NODE_GB_S | BETWEEN_NODES_GB_S).items():
        within = [n for n in counts if n <= assumed.gpus_per_node or name in BETWEEN_NODES_GB_S]
        times = [f"{ring_ms(known.gradient_bytes, n, speed, assumed):,.0f}" for n in within]
        rows.append((name, f"{speed:g}", *times, *["–"] * (len(counts) - len(within))))
    return _table(header, rows, last="figure")


def _memory_table(steps: Sequence[Step], known: Measured) -> str:
    header = ("images per GPU", "workers per GPU", "batches in /dev/shm (MB)", "host memory (GB)")
    rows = []
    for local in sorted({one.batch // one.gpus for one in steps}):
        workers = math.ceil(max(one.cores for one in steps if one.batch // one.gpus == local))
        shared = workers * PREFETCHED_BATCHES * local * known.pixel_bytes / 1e6
        weights = 2 * known.checkpoint_bytes / 1e6  # on their way to the device, and to a file
        host = shared + known.annotations_mb + known.process_mb * (1 + workers) / 5 + weights
        rows.append((f"{local}", f"{workers}", f"{shared:.0f}", f"{host / 1e3:.1f}"))
    return _table(header, rows, last="figure")


def _stops_table(known: Measured, assumed: Assumptions) -> str:
    written = known.checkpoint_bytes / (assumed.disk_gb_s * 1e9)
    copied = known.checkpoint_bytes / (assumed.device_copy_gb_s * 1e9)
    restart = assumed.requeue_seconds + known.start_seconds + written
    header = ("interrupted every", "a save blocks", "best interval", "time lost")
    rows = []
    counts = {f"{gpus} GPUs": assumed.gpu_mtbf_hours / gpus for gpus in (8, 64, 512)}
    for name, hours in {**counts, "without notice": 4.0}.items():
        # The loop waits for the copy in memory; the file is written in the background.
        interval = best_interval(copied, hours * 3600)
        lost = lost_share(interval, copied, hours * 3600, restart)
        figures = (f"{copied:.2f} s", f"{interval / 60:.0f} min", f"{lost:.2%}")
        rows.append((f"{hours:,.0f} h ({name})", *figures))
    with_notice = restart / (4.0 * 3600)
    rows.append(("4 h (with notice by a signal)", "–", "–", f"{with_notice:.2%}"))
    return _table(header, rows, last="figure")


def with_blocks(page: str, tables: dict[str, str]) -> str:
    """The page with each table between its two markers."""
    for name, table in tables.items():
        before, _, rest = page.partition(BEGIN.format(name))
        _, _, after = rest.partition(END.format(name))
        page = f"{before}{BEGIN.format(name)}\n{table}\n{END.format(name)}{after}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    what.add_argument("--json", action="store_true", help="figures instead of tables")
    for one in fields(Assumptions):
        flag = f"--{one.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(one.default), default=one.default, help="%(default)s")
    arguments = parser.parse_args()
    given = {one.name: getattr(arguments, one.name) for one in fields(Assumptions)}
    known, assumed = measured(), Assumptions(**given)
    if arguments.json:
        steps = [asdict(step(*scenario, known, assumed)) for scenario in SCENARIOS]
        print(json.dumps({**asdict(known), **given, "steps": steps}, indent=1))
    elif arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_blocks(page, blocks(known, assumed)), encoding="utf-8")
    else:
        print("\n\n".join(blocks(known, assumed).values()))


if __name__ == "__main__":
    main()
