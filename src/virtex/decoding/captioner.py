"""Images to captions: the backbone, the forward head and beam search in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.decoding.beam import beam_search
from virtex.models.backbone import Backbone
from virtex.models.decoder import TransformerDecoder
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Caption:
    """A caption and its score, the sum of its tokens' log-probabilities."""

    text: str
    score: float


@dataclass(frozen=True)
class Captioner:
    """Captions by beam search of at most `max_tokens` tokens after [SOS]."""

    visual: Backbone
    textual: TransformerDecoder
    tokenizer: Tokenizer
    beam_size: int
    max_tokens: int

    @torch.inference_mode()
    def caption(self, images: Tensor) -> list[list[Caption]]:
        """All surviving captions of each image, best first.

        `images` is (B, 3, H, W) uint8 on the model's device.

        The modules run in evaluation mode, and are left in the mode in which they came.
        """
        training = self.visual.training, self.textual.training
        self.visual.eval()
        self.textual.eval()
        try:
            memory = self.textual.begin(self.visual(images))
            beams = beam_search(
                self.textual.step,
                memory,
                images=len(images),
                beam_size=self.beam_size,
                max_tokens=self.max_tokens,
                sos_index=self.tokenizer.sos_index,
                eos_index=self.tokenizer.eos_index,
                device=images.device,
            )
        finally:
            self.visual.train(training[0])
            self.textual.train(training[1])
        return [
            [Caption(self._text(tokens), score) for tokens, score in zip(rows, scores, strict=True)]
            for rows, scores in zip(beams.tokens.tolist(), beams.scores.tolist(), strict=True)
        ]

    def _text(self, tokens: Sequence[int]) -> str:
        eos = self.tokenizer.eos_index
        ending = tokens.index(eos) if eos in tokens else len(tokens)
        return self.tokenizer.decode(list(tokens[:ending]))
