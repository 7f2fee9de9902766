"""The meaning of a model's outputs: tokens, categories or classes; its check against settings."""

from dataclasses import dataclass

from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer

BACKGROUND = 0
"""The index that stands for no category and pads short rows of labels."""


@dataclass(frozen=True)
class Categories:
    """The names of the object categories 1, 2, … in the order of the annotations."""

    names: tuple[str, ...]

    @property
    def vocab_size(self) -> int:
        """The number of indices: the background's and the categories'."""
        return 1 + len(self.names)

    def name(self, index: int) -> str:
        """The name of an index, 0 … `vocab_size` - 1."""
        return "background" if index == BACKGROUND else self.names[index - 1]


@dataclass(frozen=True)
class Classes:
    """The names of the classes 0, 1, … of labelled images.

    `several` tells whether an image may have any number of labels instead of exactly one.
    """

    names: tuple[str, ...]
    several: bool = False

    @property
    def vocab_size(self) -> int:
        """The number of classes."""
        return len(self.names)


Vocabulary = Tokenizer | Categories | Classes


def check_tokenizer(
    tokenizer: Tokenizer,
    *,
    source: str,
    vocab_size: int,
    unk_index: int,
    sos_index: int,
    eos_index: int,
    mask_index: int,
    text_normalization: str,
) -> None:
    """Raise UserError that names every setting that differs from the tokenizer's value."""
    pairs = {
        "DATA.VOCAB_SIZE": (vocab_size, tokenizer.vocab_size),
        "DATA.UNK_INDEX": (unk_index, tokenizer.unk_index),
        "DATA.SOS_INDEX": (sos_index, tokenizer.sos_index),
        "DATA.EOS_INDEX": (eos_index, tokenizer.eos_index),
        "DATA.MASK_INDEX": (mask_index, tokenizer.mask_index),
        "DATA.TEXT_NORMALIZATION": (text_normalization, tokenizer.normalization),
    }
    wrong = [
        f"{key} is {configured}, but the file's is {actual}"
        for key, (configured, actual) in pairs.items()
        if configured != actual
    ]
    if wrong:
        raise UserError(
            f"the configuration does not fit the vocabulary {source}: {'; '.join(wrong)}."
            " Set the file's values, or name the intended vocabulary in DATA.TOKENIZER_MODEL"
        )


def check_categories(categories: Categories, *, source: str, vocab_size: int) -> None:
    """Raise UserError unless `vocab_size` is the number of categories plus the background."""
    if vocab_size != categories.vocab_size:
        raise UserError(
            f"DATA.VOCAB_SIZE is {vocab_size}, but there are {len(categories.names)} categories "
            f"{source}, so {categories.vocab_size} with the background; set "
            f"DATA.VOCAB_SIZE {categories.vocab_size}"
        )


def check_classes(classes: Classes, *, source: str, vocab_size: int) -> None:
    """Raise UserError unless `vocab_size` is the number of classes."""
    if vocab_size != classes.vocab_size:
        raise UserError(
            f"DATA.VOCAB_SIZE is {vocab_size}, but there are {classes.vocab_size} classes {source};"
            f" set DATA.VOCAB_SIZE {classes.vocab_size}"
        )
