"""Conversion between captions and token ids, by SentencePiece byte-pair encoding.

Convention: id 0 is `<unk>` and also padding; `[SOS]`, `[EOS]` and `[MASK]` are control symbols,
which no text can produce.
"""

import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece

from virtex.errors import UserError
from virtex.files import read_at_most
from virtex.text.model_file import is_complete, normalizer_name, with_normalizer_name
from virtex.text.normalize import NORMALIZATIONS, Normalization, normalize_caption

CONTROL_SYMBOLS = ("[SOS]", "[EOS]", "[MASK]")
_MAX_SENTENCE_BYTES = 1 << 30
_MAX_MODEL_BYTES = 64 << 20  # a model of 10,000 pieces has 400,000
_PREFIX = "virtex_"
"""Begins the name of the normalizer in a model, before a `Normalization` other than published."""


def train(
    captions: Iterable[str],
    vocab_size: int,
    normalization: Normalization = "published",
    *,
    at_most: bool = False,
) -> bytes:
    """A SentencePiece model of `vocab_size` pieces for the captions, which are normalised here.

    With `at_most` it has fewer pieces where the captions do not give as many. Deterministic: the
    same captions in the same order give the same bytes. The model names its normalisation, unless
    it is the published one, of which models have no sign.

    Raises UserError when the captions hold no text, or too few or too many different characters and
    pieces for `vocab_size`.
    """
    normalized = (normalize_caption(text, normalization) for text in captions)
    sentences = [text for text in normalized if text.strip()]
    if not sentences:
        raise UserError("there is no caption with any text to train a vocabulary on")
    if vocab_size < 1:
        raise UserError(f"a vocabulary of {vocab_size} pieces is not possible")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=not at_most,
            character_coverage=1.0,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            control_symbols=list(CONTROL_SYMBOLS),
            # SentencePiece's own normalisation, by default a form of NFKC, follows ours.
            normalization_rule_name="nmt_nfkc" if normalization == "published" else "identity",
            # Longer sentences would be skipped silently.
            max_sentence_length=_MAX_SENTENCE_BYTES,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(error, vocab_size) from error
    if normalization == "published":
        return model.getvalue()
    return with_normalizer_name(model.getvalue(), _PREFIX + normalization)


def _explained(error: RuntimeError, vocab_size: int) -> UserError:
    """The trainer's error in terms of the arguments of `train`."""
    if largest := re.search(r"Vocabulary size too high.*<= (\d+)", str(error)):
        return UserError(
            f"a vocabulary of {vocab_size} pieces is too large for these captions: the largest"
            f" possible size is {largest[1]}"
        )
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
        return UserError(
            f"a vocabulary of {vocab_size} pieces is too small for these captions: their"
            f" characters alone need {smallest[1]}"
        )
    if "all_chars_count" in str(error):
        return UserError("there is no caption with any text to train a vocabulary on")
    return UserError(f"SentencePiece cannot train a vocabulary: {error}")


class Tokenizer:
    """One vocabulary: text to ids and ids to text; can be pickled, for loader workers."""

    def __init__(self, model_bytes: bytes, source: str) -> None:
        """`source` names the model in messages. Raises UserError if it lacks `CONTROL_SYMBOLS`."""
        self._source = source
        self.model_bytes = model_bytes
        self._processor = _processor(model_bytes, source)
        self.normalization = _normalization(model_bytes, source)
        self.vocab_size: int = self._processor.vocab_size()
        self.unk_index: int = self._processor.unk_id()
        self.sos_index, self.eos_index, self.mask_index = map(self._control, CONTROL_SYMBOLS)
        self.special_ids = frozenset(
            index
            for index in range(self.vocab_size)
            if self._processor.is_control(index) or self._processor.is_unknown(index)
        )
        """Ids that stand for no text: control symbols and unknown text."""

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a `.model` file; raises UserError if it is not one."""
        content = read_at_most(
            path,
            _MAX_MODEL_BYTES,
            name=f"the vocabulary {path}",
            remedy="create one with `virtex tokenizer`",
        )
        return cls(content, str(path))

    @classmethod
    def from_bytes(cls, model_bytes: bytes) -> "Tokenizer":
        """The tokenizer of a model's bytes, as `model_bytes` and a checkpoint hold them."""
        return cls(model_bytes, "the given bytes")

    def normalize(self, text: str) -> str:
        """The normal form of a caption that this vocabulary was trained on."""
        return normalize_caption(text, self.normalization)

    def encode(self, text: str) -> list[int]:
        """Token ids of a normalised caption, without `[SOS]` and `[EOS]`; unknown text is id 0."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids (each 0 … V-1), without control symbols and unknown tokens."""
        text: str = self._processor.decode([int(i) for i in ids if int(i) not in self.special_ids])
        return text

    @cached_property
    def ordinary_ids(self) -> npt.NDArray[np.int64]:
        """The ids that stand for text, ascending, (n,)."""
        return np.setdiff1d(np.arange(self.vocab_size), list(self.special_ids))

    def token(self, index: int) -> str:
        """The piece of one id; a leading ▁ marks the start of a word."""
        piece: str = self._processor.id_to_piece(index)
        return piece

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes, str]]:
        return Tokenizer, (self.model_bytes, self._source)

    def _control(self, symbol: str) -> int:
        index: int = self._processor.piece_to_id(symbol)
        if not self._processor.is_control(index):
            raise UserError(
                f"the vocabulary {self._source} has no control symbol {symbol}: train one with"
                " `virtex tokenizer`"
            )
        return index


def _processor(model_bytes: bytes, source: str) -> sentencepiece.SentencePieceProcessor:
    if len(model_bytes) > _MAX_MODEL_BYTES:
        raise UserError(
            f"{source} is larger than {_MAX_MODEL_BYTES >> 20} MB, so it is not a vocabulary"
        )
    processor = sentencepiece.SentencePieceProcessor()
    # A file that is truncated between two pieces parses, as another kind of model: check first.
    try:
        if is_complete(model_bytes) and processor.LoadFromSerializedProto(model_bytes):
            for index in range(processor.vocab_size()):
                processor.id_to_piece(index)  # raises if a damaged piece is not UTF-8
            return processor
    except (RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{source} is not a SentencePiece model: {error}") from error
    raise UserError(f"{source} is not a complete SentencePiece model: is the file truncated?")


def _normalization(model_bytes: bytes, source: str) -> Normalization:
    """The normalisation that a model names; published if it names none of ours."""
    name = normalizer_name(model_bytes)
    if not name.startswith(_PREFIX):
        return "published"
    for known in NORMALIZATIONS:
        if name == _PREFIX + known:
            return known
    raise UserError(
        f"{source} was trained with the text normalisation {name.removeprefix(_PREFIX)!r}, which"
        f" this version does not know; it knows {', '.join(NORMALIZATIONS)}. Use the version of"
        " virtex that trained it, or train one with `virtex tokenizer`"
    )
