"""The vocabulary's figures in a configuration must be those of the tokenizer's own file."""

from pathlib import Path

from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer


def check_vocabulary(
    tokenizer: Tokenizer,
    *,
    path: Path,
    vocab_size: int,
    unk_index: int,
    sos_index: int,
    eos_index: int,
    mask_index: int,
) -> None:
    """Raise UserError, with every disagreement and both its sides, unless all figures agree."""
    pairs = {
        "DATA.VOCAB_SIZE": (vocab_size, tokenizer.vocab_size),
        "DATA.UNK_INDEX": (unk_index, tokenizer.unk_index),
        "DATA.SOS_INDEX": (sos_index, tokenizer.sos_index),
        "DATA.EOS_INDEX": (eos_index, tokenizer.eos_index),
        "DATA.MASK_INDEX": (mask_index, tokenizer.mask_index),
    }
    wrong = [
        f"{key} is {configured}, the file's is {actual}"
        for key, (configured, actual) in pairs.items()
        if configured != actual
    ]
    if wrong:
        raise UserError(
            f"the configuration does not fit the vocabulary {path}: {'; '.join(wrong)}."
            " Set the file's figures, or name the vocabulary that was meant in DATA.TOKENIZER_MODEL"
        )
