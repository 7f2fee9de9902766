"""Beam search with a decoder's cache.

Semantics of the published system: every beam proposes its two best continuations; a token does not
directly repeat the one before it; a finished beam continues with [EOS] at no cost; scores are sums
of log-probabilities without length normalisation.
"""

import torch
from torch import Tensor

from virtex.decoding.hypotheses import C, Hypotheses, NextToken, log_probabilities

CONTINUATIONS = 2
"""The number of next tokens that each beam proposes at a step."""


def beam_search(
    next_token: NextToken[C],
    cache: C,
    *,
    images: int,
    beam_size: int,
    max_tokens: int,
    sos_index: int,
    eos_index: int,
    device: torch.device,
) -> Hypotheses:
    """The `beam_size` hypotheses that survive a beam search, of at most `max_tokens` tokens.

    `cache` has `images` rows, before the first token. The search ends early if every beam has.
    """
    start = torch.full((images,), sos_index, device=device)
    logits, cache = next_token(start, cache)
    scores, newest = log_probabilities(logits).topk(beam_size)  # (B, beams)
    first_row = torch.arange(images, device=device).unsqueeze(1) * beam_size
    cache = cache.select(torch.arange(images, device=device).repeat_interleave(beam_size))
    tokens = newest.unsqueeze(-1)

    for _ in range(max_tokens - 1):
        if bool((newest == eos_index).all()):
            break
        logits, cache = next_token(newest.flatten(), cache)
        step = _continuations(log_probabilities(logits), newest.flatten(), eos_index)
        step_scores, candidates = step.topk(CONTINUATIONS)  # (B·beams, 2)
        totals = scores.view(-1, 1) + step_scores
        scores, chosen = totals.view(images, -1).topk(beam_size)
        parents = first_row + chosen // CONTINUATIONS  # (B, beams), rows of the cache
        newest = candidates.view(images, -1).gather(1, chosen)
        tokens = torch.cat((tokens.flatten(0, 1)[parents], newest.unsqueeze(-1)), dim=-1)
        cache = cache.select(parents.flatten())
    return Hypotheses(tokens, scores)


def _continuations(unconstrained: Tensor, previous: Tensor, eos_index: int) -> Tensor:
    """Scores (N, V) of the next token: no direct repeat, and only [EOS], free, after [EOS]."""
    scores = unconstrained.scatter(1, previous.unsqueeze(1), -torch.inf)
    ended = torch.full_like(scores, -torch.inf)
    ended[:, eos_index] = 0.0
    return torch.where((previous == eos_index).unsqueeze(1), ended, scores)
