"""Step functions for decoding: a random language over all words so far, and a decoder without its
cache of keys and values."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from virtex.models.decoder import causal_mask

SOS, EOS = 1, 2


class Language:
    """Random logits of the next word, a function of the image and all words so far."""

    def __init__(self, vocabulary, seed):
        self.vocabulary, self.seed = vocabulary, seed

    def logits(self, image, words):
        rng = np.random.default_rng([self.seed, image, *words])
        return rng.normal(scale=2, size=self.vocabulary)

    def costs(self, image, words):
        logits = self.logits(image, words)
        total = math.log(sum(map(math.exp, logits)))
        return {token: float(logit) - total for token, logit in enumerate(logits)}


@dataclass(frozen=True)
class Prefixes:
    """The slowest cache: the image and all words of each row."""

    rows: tuple[tuple[int, ...], ...]

    def select(self, rows: Tensor):
        return Prefixes(tuple(self.rows[row] for row in rows.tolist()))


def next_token(language, calls):
    """A step of the language; `calls` collects the rows of every call."""

    def step(tokens, cache):
        longer = tuple(
            (*row, token) for row, token in zip(cache.rows, tokens.tolist(), strict=True)
        )
        calls.append(longer)
        logits = [language.logits(image, words) for image, *words in longer]
        return torch.tensor(np.array(logits)), Prefixes(longer)

    return step


@dataclass(frozen=True)
class Recomputing:
    """A decoder's cache that keeps the words alone, and recomputes everything else."""

    projected: Tensor
    tokens: Tensor

    def select(self, rows):
        return Recomputing(self.projected[rows], self.tokens[rows])


def recompute(decoder):
    """A step that runs all words through the decoder."""

    def step(newest, cache):
        tokens = torch.cat((cache.tokens, newest.unsqueeze(1)), dim=1)
        lengths = torch.full((len(tokens),), tokens.shape[1])
        mask = causal_mask(lengths, tokens.shape[1])
        logits = decoder(cache.projected, tokens, mask)[:, -1]
        return logits, Recomputing(cache.projected, tokens)

    return step


def nothing_computed(decoder, grid):
    """The cache of the images of a grid before the first word."""
    return Recomputing(decoder.project(grid), torch.empty(len(grid), 0, dtype=torch.int64))


def trimmed(words):
    """The words up to [EOS]; a search of many images continues until all have ended."""
    return words[: words.index(EOS) + 1] if EOS in words else words
