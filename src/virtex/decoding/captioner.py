"""Images to captions: the backbone, the forward head and a decoding strategy in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from torch import Tensor

from virtex.decoding.attention import WordAttention, word_attention
from virtex.decoding.beam import beam_search
from virtex.decoding.hypotheses import Hypotheses
from virtex.decoding.nucleus import draw_uniforms, nucleus_sampling
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.decoder import TransformerDecoder
from virtex.models.modes import evaluating
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class BeamSearch:
    """The most probable captions that a search with `beam_size` (≥ 1) beams finds."""

    beam_size: int

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise UserError(f"a beam size of {self.beam_size} finds no caption; give at least 1")


@dataclass(frozen=True)
class NucleusSampling:
    """`samples` (≥ 1) random captions, a function of `seed` (≥ 0) and the image's key.

    Each token is drawn from the most probable ones that together have probability `nucleus_size`
    in (0, 1].
    """

    nucleus_size: float
    samples: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.nucleus_size <= 1:
            raise UserError(
                f"a nucleus size of {self.nucleus_size} is not a probability; give a "
                "number above 0 and at most 1"
            )
        if self.samples < 1:
            raise UserError(f"{self.samples} samples give no caption; give at least 1")
        if self.seed < 0:
            raise UserError(f"the seed {self.seed} is negative; give a whole number from 0")


Strategy = BeamSearch | NucleusSampling


@dataclass(frozen=True)
class Caption:
    """A caption, the sum of its tokens' log-probabilities as its score, and its tokens.

    `tokens` are those between [SOS] and [EOS], possibly none. `text` can be empty even with
    tokens, as special and unknown tokens decode to nothing.
    """

    text: str
    score: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Captioner:
    """Captions found by a strategy, of at most `max_tokens` tokens after [SOS].

    Raises `UserError` for a `max_tokens` below one or above the positions of the head, and for more
    beams than tokens in the head's vocabulary.
    """

    visual: Backbone
    textual: TransformerDecoder
    tokenizer: Tokenizer
    strategy: Strategy
    max_tokens: int

    def __post_init__(self) -> None:
        positions = self.textual.embedding.positions.num_embeddings
        if not 1 <= self.max_tokens <= positions:
            raise UserError(
                f"captions of at most {self.max_tokens} tokens are not possible; the head reads "
                f"1 to {positions}"
            )
        vocabulary = self.textual.output.out_features
        if isinstance(self.strategy, BeamSearch) and self.strategy.beam_size > vocabulary:
            raise UserError(
                f"a beam size of {self.strategy.beam_size} is larger than the vocabulary; give at "
                f"most {vocabulary}"
            )

    def caption(self, images: Tensor, keys: Sequence[int] | None = None) -> list[list[Caption]]:
        """All captions of each image that the strategy finds, best first.

        `images` is (B, 3, H, W) uint8 on the model's device. `keys` are B whole numbers (≥ 0), by
        default 0 … B-1: images with the same key are sampled with the same random numbers.

        The modules run in evaluation mode; their mode is restored afterwards.
        """
        keys = range(len(images)) if keys is None else keys
        if len(keys) != len(images):
            raise UserError(f"{len(keys)} keys for {len(images)} images; give one for each image")
        with evaluating(self.visual, self.textual):
            found = self._decode(images, keys)
        return [
            [self._caption(tokens, score) for tokens, score in zip(rows, scores, strict=True)]
            for rows, scores in zip(found.tokens.tolist(), found.scores.tolist(), strict=True)
        ]

    def attention(self, image: Tensor, tokens: Sequence[int], *, layer: int = -1) -> WordAttention:
        """The attention of the head for each word of a caption of one image, (3, H, W) uint8.

        `tokens` are those of a `Caption`; `layer` and errors are as in `word_attention`, modes as
        in `caption`.
        """
        with evaluating(self.visual, self.textual):
            grid = self.visual(image.unsqueeze(0))
            return word_attention(self.textual, self.tokenizer, grid[0], tokens, layer=layer)

    def _decode(self, images: Tensor, keys: Sequence[int]) -> Hypotheses:
        cache = self.textual.prefill(self.visual(images))
        match self.strategy:
            case BeamSearch(beam_size):
                return beam_search(
                    self.textual.decode_step,
                    cache,
                    images=len(images),
                    beam_size=beam_size,
                    max_tokens=self.max_tokens,
                    sos_index=self.tokenizer.sos_index,
                    eos_index=self.tokenizer.eos_index,
                    device=images.device,
                )
            case NucleusSampling(nucleus_size, samples, seed):
                uniforms = draw_uniforms(seed, keys, samples=samples, max_tokens=self.max_tokens)
                return nucleus_sampling(
                    self.textual.decode_step,
                    cache,
                    uniforms=uniforms.to(images.device),
                    nucleus_size=nucleus_size,
                    sos_index=self.tokenizer.sos_index,
                    eos_index=self.tokenizer.eos_index,
                )
            case _:
                assert_never(self.strategy)

    def _caption(self, tokens: list[int], score: float) -> Caption:
        eos = self.tokenizer.eos_index
        kept = tokens[: tokens.index(eos)] if eos in tokens else tokens
        return Caption(self.tokenizer.decode(kept), score, tuple(kept))
