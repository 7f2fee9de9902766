"""What the captions of a data set are like, and the settings of their text that follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from virtex.build.captions import captions_of
from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.data.subset import Subset
from virtex.doctor.detected import Choice
from virtex.doctor.languages import UNKNOWN, has_case, is_medical, main_language
from virtex.errors import UserError
from virtex.text.mirror_words import LANGUAGES
from virtex.text.normalize import Normalization, find_changes
from virtex.text.sentences import split_sentences
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary_size import train_supported

OCCURRENCES = 20
_MOST_PIECES = 10_000
_MOST_RECORDS = 200_000
_SPECIAL_TOKENS = 2  # [SOS] and [EOS]
_SHORTEST, _LONGEST = 8, 128
_CHANGED = 0.001
_MANY_CUT = 0.05


@dataclass(frozen=True)
class CaptionSurvey:
    """The captions of the training split; `language` is a name for reasons.

    `unreadable` has a line for each text that cannot be read.
    """

    captions: tuple[str, ...]
    unreadable: tuple[str, ...]
    language: str
    medical: bool

    @property
    def mirrors(self) -> bool:
        """Whether training images may be mirrored."""
        return self.language.lower() in LANGUAGES and not self.medical


def survey_captions(records: Records, *, medical_images: bool) -> CaptionSurvey:
    """Read the captions of all training images, or of 200,000 of them; raises UserError.

    `medical_images` tells that the images alone show that mirroring would be wrong.
    """
    unreadable: list[BadImage] = []
    chosen = np.arange(0, len(records), -(-len(records) // _MOST_RECORDS))
    captions = tuple(captions_of(Subset(records, chosen), unreadable.append))
    if not captions:
        raise UserError(f"no caption can be read: {unreadable[0]}")
    return CaptionSurvey(
        captions,
        tuple(map(str, unreadable)),
        main_language(captions),
        medical_images or is_medical(captions),
    )


def choose_normalization(captions: Sequence[str]) -> tuple[Normalization, str]:
    """The normalisation that keeps all letters, and the reason."""
    if not has_case(captions):
        return "nfc", "keeps all letters; these have no capitals to convert"
    changes = find_changes(captions, "nfkc_lower")
    if changes.changed > _CHANGED * changes.characters:
        shown = ", ".join(changes.examples)
        return "nfc", f"keeps all letters, and signs that nfkc_lower changes: {shown}"
    return "nfkc_lower", (
        "keeps all letters, in lower case, so that a word has one form in a small vocabulary"
    )


def train_vocabulary(
    captions: Sequence[str], normalization: Normalization
) -> tuple[Tokenizer, str]:
    """The vocabulary, and the reason for its size."""
    tokenizer = Tokenizer.from_bytes(
        train_supported(captions, normalization, occurrences=OCCURRENCES, most=_MOST_PIECES)
    )
    size = f"{tokenizer.vocab_size:,} pieces"
    if tokenizer.vocab_size >= _MOST_PIECES:
        return tokenizer, f"{size}, as many as published; more captions would support more"
    return tokenizer, (
        f"{size}: the largest vocabulary of which each piece of several characters occurs at least"
        f" {OCCURRENCES} times in {len(captions):,} captions, alone or within a longer piece"
    )


def length_choices(captions: Sequence[str], tokenizer: Tokenizer) -> list[Choice]:
    """`DATA.MAX_CAPTION_LENGTH` and what depends on it, from the 99th percentile."""
    lengths = np.array(
        [len(tokenizer.encode(tokenizer.normalize(text))) for text in captions], np.int64
    )
    most = int(np.percentile(lengths, 99, method="inverted_cdf")) + _SPECIAL_TOKENS
    limit = min(max(most, _SHORTEST), _LONGEST)
    cut = float(np.mean(lengths + _SPECIAL_TOKENS > limit))
    reason = f"99 % of the captions have at most {most} tokens, with [SOS] and [EOS]"
    if limit < most:
        reason += f"; more than {limit} would cost memory and time"
    choices = [Choice("DATA.MAX_CAPTION_LENGTH", limit, reason)]
    if cut > _MANY_CUT and any(len(split_sentences(text)) > 1 for text in captions):
        reason = f"{cut:.0%} of the captions are longer; each step draws some of their sentences"
        choices.append(Choice("DATA.LONG_CAPTIONS", "sentences", reason))
    decoding = "no more tokens than a caption in training has"
    return [*choices, Choice("MODEL.DECODER.MAX_DECODING_STEPS", limit, decoding)]


def mirror_choices(survey: CaptionSurvey, transforms: Sequence[str]) -> list[Choice]:
    """Whether training images are mirrored, and the words that are exchanged then.

    `transforms` are those of training images without mirroring.
    """
    if survey.mirrors:
        if survey.language == "English":
            return []
        reason = f"the captions are in {survey.language}"
        return [Choice("DATA.MIRROR_WORDS", [survey.language.lower()], reason)]
    if survey.medical:
        reason = "without horizontal_flip, as a mirrored body has its organs on the other side"
    elif survey.language == UNKNOWN:
        reason = (
            "without horizontal_flip, as the language of the captions was not recognised, and"
            " mirrored images would contradict words for left and right"
        )
    else:
        reason = (
            f"without horizontal_flip, as there is no list of words for left and right in"
            f" {survey.language}; to mirror images, write such pairs in DATA.MIRROR_WORDS"
        )
    return [Choice("DATA.IMAGE_TRANSFORM_TRAIN", list(transforms), reason)]
