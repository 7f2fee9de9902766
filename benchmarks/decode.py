"""Beam search with a cache of keys and values, against one that runs the whole head at each step.

    python benchmarks/decode.py [--batch 8] [--repeats 3] [--device cpu]

Base configuration with random weights, beam 5, 29 tokens; one JSON line each with the median of
the repeats, which alternate, and the ratio.
"""

import argparse
import json
import platform
import statistics
from dataclasses import dataclass, replace

import torch
from step import BASE, alternating_seconds
from torch import Tensor

from virtex.build.model import build_objective
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.decoding.beam import beam_search
from virtex.decoding.hypotheses import Hypotheses
from virtex.models.decoder import TransformerDecoder, causal_mask

BEAM, TOKENS = 5, 29


@dataclass(frozen=True)
class WholeSequences:
    """A cache of only the tokens and the grid of each row."""

    grid: Tensor
    tokens: Tensor

    def select(self, rows: Tensor) -> "WholeSequences":
        return WholeSequences(self.grid[rows], self.tokens[rows])


def recompute(
    textual: TransformerDecoder, newest: Tensor, cache: WholeSequences
) -> tuple[Tensor, WholeSequences]:
    """Project the grid and run all tokens through the head, for the logits of the last."""
    cache = replace(cache, tokens=torch.cat((cache.tokens, newest[:, None]), dim=1))
    lengths = torch.full((len(newest),), cache.tokens.shape[1], device=newest.device)
    projected = textual.project(cache.grid)
    mask = causal_mask(lengths, cache.tokens.shape[1])
    return textual(projected, cache.tokens, mask)[:, -1], cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    device = arguments.device
    torch.manual_seed(0)
    model = build_objective(settings.load(Config, BASE)).to(device).eval()
    textual = model.textual
    # Captions must not end early, so that both run all steps.
    with torch.no_grad():
        textual.output.bias[2] = -1e9
    images = torch.randint(0, 256, (arguments.batch, 3, 224, 224), dtype=torch.uint8).to(device)
    limits = {"images": arguments.batch, "beam_size": BEAM, "max_tokens": TOKENS}
    indices = {"sos_index": 1, "eos_index": 2}

    @torch.inference_mode()
    def with_cache() -> Hypotheses:
        cache = textual.prefill(model.visual(images))
        return beam_search(textual.decode_step, cache, **limits, **indices, device=device)

    @torch.inference_mode()
    def without_cache() -> Hypotheses:
        nothing = torch.empty(arguments.batch, 0, dtype=torch.int64, device=device)
        cache = WholeSequences(model.visual(images), nothing)

        def step(newest: Tensor, cache: WholeSequences) -> tuple[Tensor, WholeSequences]:
            return recompute(textual, newest, cache)

        return beam_search(step, cache, **limits, **indices, device=device)

    difference = (with_cache().scores - without_cache().scores).abs().max()
    slow, fast = alternating_seconds([without_cache, with_cache], arguments.repeats)
    line = {
        "benchmark": "decode",
        "seconds_with_memory": round(statistics.median(fast), 3),
        "seconds_without": round(statistics.median(slow), 3),
        "ratio": round(statistics.median(s / f for s, f in zip(slow, fast, strict=True)), 2),
        "largest_score_difference": float(difference),
        **limits,
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        line["device"] = torch.cuda.get_device_name()
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
