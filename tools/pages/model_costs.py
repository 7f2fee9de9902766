"""Parameters and operations of every published configuration: the table of `docs/models.md`.

    python tools/pages/model_costs.py [--write]

A multiply-add counts as two operations. One image of 224 px and a caption of 30 tokens, in
training. Matrix products and convolutions are counted as torch's operators run; on the meta
device, where this counts without computing, attention consists of them. Norms, activations,
softmax and the optimizer are not counted. Backward is what autograd runs: the gradient of every
weight and activation, but not of the pixels. `--write` puts the table into the page; the figures of
the paper are those of `virtex.experiments.published`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from virtex.build.model import build_objective
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.experiments.published import PUBLISHED

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "src" / "virtex" / "configs"
PAGE = REPOSITORY / "docs" / "models.md"
BEGIN, END = "<!-- begin: tools/pages/model_costs.py -->", "<!-- end -->"
TOKENS = 30


@dataclass(frozen=True)
class Costs:
    """The costs of one model: parameters, and operations per image."""

    parameters: int
    forward: int
    backward: int


def published_configs() -> list[str]:
    """The base and the ablations of the paper, below `configs/`."""
    paths = [*CONFIGS.glob("_base_*.yaml"), *sorted(CONFIGS.glob("*_ablations/*.yaml"))]
    return [str(path.relative_to(CONFIGS)) for path in paths]


def costs(config: Config) -> Costs:
    """Count on the meta device, where tensors have shapes and no values."""
    with torch.device("meta"):
        model = build_objective(config)
        batch = one_image(config)
    with FlopCounterMode(display=False) as forward:
        losses = model(batch)
    with FlopCounterMode(display=False) as backward:
        torch.stack([loss.mean for loss in losses.values()]).sum().backward()
    return Costs(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        forward=forward.get_total_flops(),
        backward=backward.get_total_flops(),
    )


def one_image(config: Config) -> dict[str, Tensor]:
    """A batch with the tensors of every task."""
    side = config.data.image_crop_size
    tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
    names = ("caption_tokens", "reversed_tokens", "masked_labels", "labels")
    return {
        "image_id": torch.zeros(1, dtype=torch.int64),
        "dropout_key": torch.zeros(1, dtype=torch.int64),
        "image": torch.zeros(1, 3, side, side, dtype=torch.uint8),
        "caption_lengths": torch.full((1,), TOKENS),
        **dict.fromkeys(names, tokens),
    }


def block() -> str:
    """Table and commands, as Markdown."""
    configs = {name: settings.load(Config, CONFIGS / name) for name in published_configs()}
    rows = [row(name, config) for name, config in configs.items()]
    commands = [command(name) for name in configs]
    return "\n".join(
        [
            "| configuration | parameters (M) | forward (GFLOP) | forward + backward (GFLOP) "
            "| VOC07 mAP | ImageNet top-1 |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
            "```sh",
            *commands,
            "```",
        ]
    )


def row(name: str, config: Config) -> str:
    """One line of the table."""
    counted = costs(config)
    head = config.model.textual.name.rpartition("::")[2]
    voc07, imagenet = PUBLISHED[config.model.name, config.model.visual.network, head]
    cells = (
        f"`{name.removesuffix('.yaml')}`",
        f"{counted.parameters / 1e6:.1f}",
        f"{counted.forward / 1e9:.1f}",
        f"{(counted.forward + counted.backward) / 1e9:.1f}",
        f"{voc07:.1f}",
        f"{imagenet:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def command(name: str) -> str:
    """The command that trains a configuration as published."""
    return (
        f"python scripts/pretrain_virtex.py --config configs/{name} --num-gpus-per-machine 8 "
        f"--cpu-workers 4 --serialization-dir runs/{name.removesuffix('.yaml')}"
    )


def with_block(page: str, text: str) -> str:
    """The page with `text` between its two markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Parameters and operations of all models.")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(REPOSITORY)}")
    arguments = parser.parse_args()
    text = block()
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_block(page, text), encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
