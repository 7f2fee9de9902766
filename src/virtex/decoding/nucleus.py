"""Nucleus sampling with a decoder's cache (Holtzman et al., 2020, section 3.1).

Each token is drawn from the nucleus: the smallest set of the most probable tokens whose total
probability reaches a given size, renormalised. The random numbers are an argument; see
`draw_uniforms`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from virtex.decoding.hypotheses import C, Hypotheses, NextToken, log_probabilities

_SAMPLING_STREAM = 2


def nucleus_sampling(
    next_token: NextToken[C],
    cache: C,
    *,
    uniforms: Tensor,
    nucleus_size: float,
    sos_index: int,
    eos_index: int,
) -> Hypotheses:
    """`samples` hypotheses of each image, of at most `max_tokens` tokens.

    `uniforms` is (B, samples, max_tokens), in [0, 1), on the decoder's device; float64 resolves the
    rarest tokens. `nucleus_size` is in (0, 1]; 1 samples from the whole distribution. `cache` has
    B rows, before the first token. A score sums the log-probabilities of the model, not those of
    the nucleus. Sampling ends early if every hypothesis has ended.
    """
    images, samples, _ = uniforms.shape
    start = torch.full((images,), sos_index, device=uniforms.device)
    logits, cache = next_token(start, cache)
    newest, scores = _draw(logits, uniforms[:, :, 0], nucleus_size)  # (B, samples)
    newest, scores = newest.flatten(), scores.flatten()
    cache = cache.select(torch.arange(images, device=start.device).repeat_interleave(samples))
    tokens = [newest]

    for uniform in uniforms.flatten(0, 1)[:, 1:].unbind(1):
        ended = newest == eos_index
        if bool(ended.all()):
            break
        logits, cache = next_token(newest, cache)
        drawn, costs = _draw(logits, uniform.unsqueeze(1), nucleus_size)
        newest = drawn.squeeze(1).masked_fill(ended, eos_index)
        scores = scores + costs.squeeze(1).masked_fill(ended, 0.0)
        tokens.append(newest)

    ranked, order = scores.view(images, samples).sort(descending=True, stable=True)
    rows = torch.stack(tokens, dim=-1).view(images, samples, -1)
    return Hypotheses(rows.take_along_dim(order.unsqueeze(-1), dim=1), ranked)


def draw_uniforms(seed: int, keys: Sequence[int], *, samples: int, max_tokens: int) -> Tensor:
    """Random numbers (B, samples, max_tokens) float64 in [0, 1) for images with these 64-bit keys.

    A number is a function of the seed, its image's key, its sample and its token only, so it
    depends neither on the other images nor on how many samples or tokens are requested.
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
