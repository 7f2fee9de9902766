"""The tokenizers of captions, by name."""

from collections.abc import Callable
from typing import Any, Literal, assert_never

from virtex.errors import UserError
from virtex.metrics.penn_treebank import penn_treebank_tokens

TokenizerName = Literal["ptb", "international", "characters"]


def find_tokenizer(name: TokenizerName) -> Callable[[str], list[str]]:
    """A function from a caption to its tokens, all in lower case.

    - `ptb`: words of English without punctuation, as in the published COCO caption evaluation;
    - `international`: words and single punctuation marks of any language that has blanks between
      words (sacrebleu's `intl`);
    - `characters`: all characters but blanks (sacrebleu's `char`).

    Raises UserError when sacrebleu is needed and not installed.
    """
    match name:
        case "ptb":
            return penn_treebank_tokens
        case "international":
            import_sacrebleu(f"the tokenizer {name}")
            from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International

            return _lower_cased(TokenizerV14International())
        case "characters":
            import_sacrebleu(f"the tokenizer {name}")
            from sacrebleu.tokenizers.tokenizer_char import TokenizerChar

            return _lower_cased(TokenizerChar())
    assert_never(name)


def _lower_cased(tokenize: Callable[[str], str]) -> Callable[[str], list[str]]:
    return lambda caption: tokenize(caption.lower()).split()


def import_sacrebleu(purpose: str) -> Any:
    """The library sacrebleu; raises UserError, with what it is needed for and what to install."""
    try:
        import sacrebleu
    except ImportError as error:
        raise UserError(
            f"{purpose} needs a further package: pip install 'virtex-pretraining[metrics]'"
        ) from error
    return sacrebleu
