"""The log-likelihood of texts given images, from the heads of a captioning model.

Texts are normalised, tokenised and cut as captions in training, and the tokens that the training
loss counts are those that count here: all but [SOS] at the start, and none that is unknown.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from virtex.errors import first_few
from virtex.evaluation.heads import EvaluatedModel
from virtex.models.decoder import KVCache, TransformerDecoder
from virtex.models.modes import evaluating
from virtex.tasks import find_task
from virtex.tasks.base import at_least_float32
from virtex.tasks.caption_tokens import CaptionTokens, padded
from virtex.tasks.captioning import Captioning

Floats = npt.NDArray[np.float64]

_ROWS = {"cpu": 256, "cuda": 2048}
"""Pairs of an image and a text at once: it bounds the memory of logits, keys and values."""


@dataclass(frozen=True)
class TextScorer:
    """The log-likelihood of texts, the mean of those of all heads.

    `heads` are pairs of a head and whether it reads from the end. At most `rows` pairs of an image
    and a text are computed at once.
    """

    heads: tuple[tuple[TransformerDecoder, bool], ...]
    captions: CaptionTokens
    rows: int

    def tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each text, with [SOS] and [EOS]; one that was cut lacks [EOS]."""
        return [tuple(self.captions.tokens(text)) for text in texts]

    def findings(self, texts: Sequence[str], kind: str) -> list[str]:
        """Lines that count and name the texts with unknown pieces, and those that were cut."""
        tokenizer = self.captions.tokenizer
        found: dict[str, list[str]] = {
            "have pieces that the vocabulary lacks, which do not count": [],
            f"are longer than MAX_CAPTION_LENGTH ({self.captions.max_length}) and were cut": [],
        }
        unknown, cut = found.values()
        for text, tokens in zip(texts, self.tokens(texts), strict=True):
            if tokenizer.unk_index in tokens:
                unknown.append(repr(text))
            if tokens[-1] != tokenizer.eos_index:
                cut.append(repr(text))
        return [
            f"{len(named):,} of {len(texts):,} {kind} {what}: {first_few(named, 3)}"
            for what, named in found.items()
            if named
        ]

    def log_likelihoods(self, grid: Tensor, texts: Sequence[tuple[int, ...]]) -> Floats:
        """The log-likelihood of M ≥ 1 tokenised texts given the images of a grid (B, C, h, w).

        (B, M) in nats, summed over the tokens of a text. The grid is projected once.
        """
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        at_once = max(self.rows // len(grid), 1)
        total = torch.zeros(len(grid), len(texts), dtype=torch.float64, device=grid.device)
        with evaluating(*(head for head, _ in self.heads)):
            for head, reverse in self.heads:
                cache = head.prefill(grid)
                for chunk in _chunks(order, at_once):
                    rows = [torch.tensor(texts[row]) for row in chunk]
                    tokens = padded(
                        [row.flip(0) if reverse else row for row in rows],
                        self.captions.padding_index,
                    ).to(grid.device)
                    total[:, chunk] += _log_likelihoods(head, cache, tokens, len(grid))
        mean: Floats = (total / len(self.heads)).cpu().numpy()
        return mean

    def steps(self, texts: Sequence[tuple[int, ...]]) -> int:
        """How many tokens of each head are computed for an image."""
        return sum(len(text) - 1 for text in texts)


def text_scorer(model: EvaluatedModel) -> TextScorer:
    """The scorer of a model, by its captioning head and, with bicaptioning, the backward head."""
    pretrained = model.pretrained
    objective, config = pretrained.objective, pretrained.config
    captioning_head = find_task(config.model.name).captioning_head
    assert captioning_head is not None, "open_models refuses models without one"
    heads = [(captioning_head(objective), False)]
    if isinstance(objective, Captioning) and objective.backward_textual is not None:
        heads.append((objective.backward_textual, True))
    captions = CaptionTokens(model.tokenizer, config.data.max_caption_length)
    return TextScorer(tuple(heads), captions, _ROWS[pretrained.device.type])


def estimated_seconds(
    scorer: TextScorer,
    grid: Tensor,
    texts: Sequence[tuple[int, ...]],
    images: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The time that all texts given `images` images will take, from a measurement of a few."""
    by_length = sorted(texts, key=len)
    few = max(scorer.rows // len(grid), 1)
    middle = max((len(texts) - few) // 2, 0)
    sample = by_length[middle : middle + few]
    seconds = 0.0
    for _ in range(2):  # the first time includes what is done once
        start = clock()
        scorer.log_likelihoods(grid, sample)
        seconds = clock() - start
    share = len(grid) * scorer.steps(sample) / (images * scorer.steps(texts))
    return seconds / share


def without_prior(scores: Floats) -> Floats:
    """Scores (N, M) of texts given images, less the mean of each text over the images."""
    less: Floats = scores - scores.mean(axis=0)
    return less


def _chunks(order: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(order), size):
        yield list(order[first : first + size])


def _log_likelihoods(
    head: TransformerDecoder, cache: KVCache, tokens: Tensor, images: int
) -> Tensor:
    """(B, K) float64 for K texts (K, T) int64, padded on the right, given each of B images."""
    rows = tokens.repeat(images, 1)  # (B · K, T), the texts of an image adjacent
    total = torch.zeros(len(rows), dtype=torch.float64, device=tokens.device)
    padding = head.embedding.padding_index
    for step in range(tokens.shape[1] - 1):
        logits, cache = head.decode_step(rows[:, step], cache)
        total -= F.cross_entropy(
            at_least_float32(logits), rows[:, step + 1], ignore_index=padding, reduction="none"
        )
    return total.view(images, -1)
