"""Nucleus sampling with a decoder's memory (Holtzman et al., 2020, section 3.1).

Each token is drawn from the nucleus: the fewest likeliest tokens whose probability together reaches
a given size, renormalised. The random numbers are an argument; `draw_uniforms` makes them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from virtex.decoding.hypotheses import Hypotheses, M, NextToken, log_probabilities

_SAMPLING_STREAM = 2


def nucleus_sampling(
    next_token: NextToken[M],
    memory: M,
    *,
    uniforms: Tensor,
    nucleus_size: float,
    sos_index: int,
    eos_index: int,
) -> Hypotheses:
    """As many hypotheses of each image, of at most as many tokens, as there are random numbers.

    `uniforms` is (B, samples, max_tokens), in [0, 1), on the decoder's device; float64 resolves the
    rarest tokens. `nucleus_size` is in (0, 1]; 1 samples from the whole distribution. `memory` is
    that of B rows before the first token. A score sums the model's own log-probabilities, not the
    nucleus's. Ends when every hypothesis has ended.
    """
    images, samples, _ = uniforms.shape
    start = torch.full((images,), sos_index, device=uniforms.device)
    logits, memory = next_token(start, memory)
    newest, scores = _draw(logits, uniforms[:, :, 0], nucleus_size)  # (B, samples)
    newest, scores = newest.flatten(), scores.flatten()
    memory = memory.select(torch.arange(images, device=start.device).repeat_interleave(samples))
    tokens = [newest]

    for uniform in uniforms.flatten(0, 1)[:, 1:].unbind(1):
        ended = newest == eos_index
        if bool(ended.all()):
            break
        logits, memory = next_token(newest, memory)
        drawn, costs = _draw(logits, uniform.unsqueeze(1), nucleus_size)
        newest = drawn.squeeze(1).masked_fill(ended, eos_index)
        scores = scores + costs.squeeze(1).masked_fill(ended, 0.0)
        tokens.append(newest)

    ranked, order = scores.view(images, samples).sort(descending=True, stable=True)
    rows = torch.stack(tokens, dim=-1).view(images, samples, -1)
    return Hypotheses(rows.take_along_dim(order.unsqueeze(-1), dim=1), ranked)


def draw_uniforms(seed: int, keys: Sequence[int], *, samples: int, max_tokens: int) -> Tensor:
    """Random numbers for images with these keys, of 64 bits: (B, samples, max_tokens) float64 in
    [0, 1).

    A number is a function of the seed, its image's key, its sample and its token alone, so that it
    depends neither on the other images nor on how many samples or tokens are asked for.
    """
    uniforms = np.empty((len(keys), samples, max_tokens))
    for image, key in enumerate(keys):
        for sample in range(samples):
            sequence = np.random.SeedSequence(
                [seed, key % 2**64], spawn_key=(_SAMPLING_STREAM, sample)
            )
            generator = np.random.Generator(np.random.Philox(sequence))
            uniforms[image, sample] = generator.random(max_tokens)
    return torch.from_numpy(uniforms)


def _draw(logits: Tensor, uniforms: Tensor, nucleus_size: float) -> tuple[Tensor, Tensor]:
    """Draw K tokens from the nucleus of each of N distributions, by inverse CDF.

    Logits (N, V) and uniforms (N, K) to tokens and their log-probabilities, both (N, K).
    """
    ranked, order = log_probabilities(logits).sort(descending=True, stable=True)
    # In float64, where the sum of a vocabulary's rounding errors is far below any token.
    cumulative = ranked.double().exp().cumsum(dim=-1)
    cumulative = cumulative / cumulative[:, -1:]
    # The token that crosses the size is still in the nucleus.
    last = (cumulative < nucleus_size).sum(dim=-1, keepdim=True)
    mass = cumulative.gather(1, last)
    places = torch.searchsorted(cumulative, uniforms * mass, right=True)
    return order.gather(1, places), ranked.gather(1, places)
