"""What a run says at its start about its captions: letters that their normalisation changes or that
no font has, and words that do not fit mirrored images."""

from collections.abc import Sequence
from typing import NamedTuple

from virtex.build.mirror_words import mirror_pairs
from virtex.config.data import Data
from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.plots.fonts import font_advice
from virtex.text.mirror_words import LANGUAGES, Language, language_pairs
from virtex.text.mirroring import MirrorWords
from virtex.text.normalize import find_changes
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Vocabulary

_BLOCKS, _BLOCK = 8, 128  # of neighbouring images, as neighbours lie in one shard
_MANY = 0.01  # of all characters
_RELATED = 0.1
"""Captions with words of another language, per caption with words that are exchanged, below which
these are words with two meanings, such as the links of a chain."""


class CaptionFindings(NamedTuple):
    """Lines for the log of a run."""

    report: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_captions(
    data: Data, records: Records, vocabulary: Vocabulary, *, remote: bool
) -> CaptionFindings:
    """The findings in a sample of the training captions; none where the labels are no captions.

    Of `remote` shards no sample is taken, as whole shards would be fetched for it.
    """
    if not isinstance(vocabulary, Tokenizer):
        return CaptionFindings()
    if remote:
        line = "captions of remote shards are not checked for changed letters and mirrored words"
        return CaptionFindings(report=(line,))
    captions = _sample(records)
    normalized = [vocabulary.normalize(caption) for caption in captions]
    advice = font_advice(normalized)
    found = [
        CaptionFindings(report=() if advice is None else (f"sample predictions: {advice}",)),
        _letters(captions, vocabulary),
    ]
    if any(
        each.name == "horizontal_flip" and each.arguments["p"] for each in data.transforms_train
    ):
        found.append(_mirrored(data, normalized, vocabulary))
    return CaptionFindings(
        tuple(line for findings in found for line in findings.report),
        tuple(line for findings in found for line in findings.warnings),
    )


def _sample(records: Records) -> list[str]:
    """The captions of up to 1,024 images, in blocks that are spread evenly."""
    captions: list[str] = []
    stride = max(len(records) // _BLOCKS, _BLOCK)
    for first in range(0, len(records), stride):
        for position in range(first, min(first + _BLOCK, len(records))):
            try:
                captions += records[position].captions
            except BadImage:
                continue  # reported when training reads it
    return captions


def _letters(captions: Sequence[str], tokenizer: Tokenizer) -> CaptionFindings:
    changes = find_changes(captions, tokenizer.normalization)
    if not changes.letters:
        return CaptionFindings()
    keeps = "nfkc_lower" if tokenizer.normalization == "published" else "nfc"
    share = changes.letters / changes.characters
    line = (
        f"DATA.TEXT_NORMALIZATION {tokenizer.normalization} changes {share:.2%} of the characters"
        f" of {len(captions):,} sampled training captions to other letters:"
        f" {', '.join(changes.examples)}; {keeps} keeps them, with a vocabulary of"
        f" `virtex tokenizer --normalization {keeps}`"
    )
    many = changes.letters >= _MANY * changes.characters
    return CaptionFindings(warnings=(line,)) if many else CaptionFindings(report=(line,))


def _mirrored(data: Data, captions: Sequence[str], tokenizer: Tokenizer) -> CaptionFindings:
    """The findings on words of normalised captions that are exchanged with the image, or not."""
    words = MirrorWords.normalized(mirror_pairs(data), tokenizer.normalization)
    rest = [caption for caption in captions if words.swap(caption) == caption]
    exchanged = len(captions) - len(rest)
    others = {language: _changed_by(language, rest, tokenizer) for language in LANGUAGES}
    language, missed = max(others.items(), key=lambda item: len(item[1]))
    setting = f"DATA.MIRROR_WORDS ({', '.join(data.mirror_words) or 'empty'})"
    remedy = "or remove horizontal_flip from DATA.IMAGE_TRANSFORM_TRAIN"
    if missed and len(missed) >= _RELATED * exchanged:
        line = (
            f"{len(missed):,} of {len(captions):,} sampled training captions name left or right in"
            f" {language.capitalize()}, such as {missed[0]!r:.100}, and {setting} does not exchange"
            f" these words when the image is mirrored; add {language} to it, {remedy}"
        )
        return CaptionFindings(warnings=(line,))
    if exchanged or not words.pairs:
        return CaptionFindings()
    line = (
        f"none of {len(captions):,} sampled training captions has a word that {setting} exchanges"
        " when the image is mirrored; if they name left and right in other words, add these to it,"
        f" {remedy}"
    )
    return CaptionFindings(report=(line,))


def _changed_by(language: Language, captions: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    words = MirrorWords.normalized(language_pairs(language), tokenizer.normalization)
    return [caption for caption in captions if words.swap(caption) != caption]
