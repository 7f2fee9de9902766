"""What replaces settings and values of earlier published releases, for messages."""

from collections.abc import Mapping

KEYS: Mapping[str, str] = {
    "FP16_OPT": "it is AMP since release 1.0: write false for 0, and true for 1 or 2",
    "DATA.TOKENIZER_VOCAB": "remove it, as DATA.TOKENIZER_MODEL holds the vocabulary",
    "OPTIM.USE_LOOKAHEAD": "it is OPTIM.LOOKAHEAD.USE since release 1.0",
    "OPTIM.LOOKAHEAD_ALPHA": "it is OPTIM.LOOKAHEAD.ALPHA since release 1.0",
    "OPTIM.LOOKAHEAD_STEPS": "it is OPTIM.LOOKAHEAD.STEPS since release 1.0",
}
"""Settings of release 0.9 by dotted key, each with its remedy."""


def todays_architecture(text: str) -> str:
    """A textual head by its name since release 1.0."""
    return text.replace("transformer_", "transdec_", 1)
