"""What the loader's halves of several tasks share: images, and captions as tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.base import TaskSettings
from virtex.text.mirroring import ENGLISH, MirrorWords
from virtex.text.sentences import split_sentences
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class CaptionTokens:
    """Captions of an image, drawn without replacement, as at most `max_length` tokens each.

    At most `per_image` captions are drawn; None draws all. With `single_caption` only the first
    caption of an image can be drawn. With `whole_sentences`, a caption that is too long is replaced
    by a sentence of it, drawn, and those that follow as long as they fit.
    """

    tokenizer: Tokenizer
    max_length: int
    single_caption: bool = False
    per_image: int | None = 1
    whole_sentences: bool = False
    mirror_words: MirrorWords = ENGLISH

    @property
    def padding_index(self) -> int:
        """The token that pads short captions, which also stands for unknown text."""
        return self.tokenizer.unk_index

    def draw(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> list[list[int]]:
        """[SOS], the tokens and [EOS] of each caption.

        In the captions of a mirrored image, `mirror_words` such as *left* and *right* are swapped.
        A long caption is cut on the right and then lacks [EOS], so that no model learns that it
        ended there.
        """
        captions = list(record.captions[:1] if self.single_caption else record.captions)
        count = len(captions) if self.per_image is None else min(self.per_image, len(captions))
        drawn = [captions.pop(int(rng.integers(len(captions)))) for _ in range(count)]
        if self.whole_sentences:
            drawn = [self._sentences(caption, rng) for caption in drawn]
        return [self.tokens(caption, mirrored=augmented.mirrored) for caption in drawn]

    def count_tokens(self, caption: str) -> int:
        """The number of tokens of a whole caption, with [SOS] and [EOS]."""
        return len(self.tokenizer.encode(self.tokenizer.normalize(caption))) + 2

    def _sentences(self, caption: str, rng: np.random.Generator) -> str:
        """The caption, or some of its sentences if it is too long."""
        if self.count_tokens(caption) <= self.max_length:
            return caption
        sentences = split_sentences(caption)
        start = int(rng.integers(len(sentences)))
        stop = start + 1
        while stop < len(sentences):
            if self.count_tokens(" ".join(sentences[start : stop + 1])) > self.max_length:
                break
            stop += 1
        return " ".join(sentences[start:stop])

    def tokens(self, caption: str, *, mirrored: bool = False) -> list[int]:
        """[SOS], the tokens and [EOS] of one caption, cut as in `draw`."""
        words = self._words(caption, mirrored=mirrored)
        return [self.tokenizer.sos_index, *words, self.tokenizer.eos_index][: self.max_length]

    def all_tokens(self, record: Record, *, mirrored: bool = False) -> list[int]:
        """The distinct tokens of all captions that can be drawn, ascending, without special ones.

        No caption is cut, as each of its tokens tells about the image.
        """
        captions = record.captions[:1] if self.single_caption else record.captions
        found = {token for text in captions for token in self._words(text, mirrored=mirrored)}
        return sorted(found - set(self.tokenizer.special_ids))

    def _words(self, caption: str, *, mirrored: bool) -> list[int]:
        caption = self.tokenizer.normalize(caption)
        if mirrored:
            caption = self.mirror_words.swap(caption)
        return self.tokenizer.encode(caption)


def caption_tokens(tokenizer: Tokenizer, settings: TaskSettings, training: bool) -> CaptionTokens:
    """The captions of a split; only training takes the first or several of each image.

    Validation draws one, so that its losses can be compared.
    """
    single = settings.single_caption and training
    return CaptionTokens(
        tokenizer,
        settings.max_caption_length,
        single,
        per_image=settings.captions_per_image if training else 1,
        whole_sentences=settings.whole_sentences,
        mirror_words=MirrorWords.normalized(settings.mirror_pairs, tokenizer.normalization),
    )


def image_example(record: Record, augmented: Augmented) -> dict[str, object]:
    """`image` (H, W, 3) uint8 and `image_id` of an example."""
    return {"image_id": record.image_id, "image": torch.from_numpy(augmented.image)}


def image_batch(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """`image` (B, 3, H, W) uint8 and `image_id` (B,) int64 of a batch."""
    return {
        "image_id": torch.tensor([example["image_id"] for example in examples]),
        # A view with channels-last strides: no copy of the pixels.
        "image": torch.stack([example["image"] for example in examples]).permute(0, 3, 1, 2),
    }


def caption_batch(examples: Sequence[Mapping[str, Any]], padding: int) -> dict[str, Tensor]:
    """A `Batch` of examples with lists of `caption_tokens`, (t,) int64, and of `dropout_key`.

    `caption_tokens` becomes (N, T) int64, padded on the right; `caption_lengths` is (N,) int64.
    """
    captions = of_captions(examples, "caption_tokens")
    batch = image_batch(examples) | {
        "dropout_key": torch.tensor(of_captions(examples, "dropout_key")),
        "caption_tokens": padded(captions, padding),
        "caption_lengths": torch.tensor([len(caption) for caption in captions]),
    }
    if len(captions) > len(examples):
        counts = [len(example["caption_tokens"]) for example in examples]
        batch["captions_per_image"] = torch.tensor(counts)
    return batch


def of_captions(examples: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """The N values of all captions, from examples that hold a list of them under `name`."""
    return [value for example in examples for value in example[name]]


def dropout_keys(captions: int, rng: np.random.Generator) -> list[int]:
    """A key of 63 random bits for each caption, drawn last so that it moves no other draw."""
    keys: list[int] = rng.integers(2**63, size=captions).tolist()
    return keys


def padded(rows: Sequence[Tensor], padding: int) -> Tensor:
    """(N, T) int64 of rows (t,), filled up on the right to the longest."""
    return pad_sequence(list(rows), batch_first=True, padding_value=padding)
