"""What `equal_cost.py` compares: a configuration of the package, and settings that override it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    config: str = "rsicd/bicaptioning"
    settings: dict[str, object] = field(default_factory=dict)


HIGH = {"OPTIM.LR": 1e-3}
PUBLISHED = {"MODEL.TEXTUAL.INITIAL_STD": 0.02, "MODEL.VISUAL.ZERO_INIT_RESIDUAL": True}
TUNING: dict[str, dict[str, object]] = {
    "": {},
    ", head 1e-3": HIGH,
    ", published initialisation": PUBLISHED,
    ", head 1e-3, published initialisation": HIGH | PUBLISHED,
}
"""The four settings that the baselines and the best combination are tuned over."""

ONE_DIRECTION = {"MODEL.NAME": "captioning"}
PARALLEL = {"MODEL.NAME": "parallel_captioning"}


def tuned(name: str, row: Row) -> dict[str, Row]:
    """The row with each of the four settings."""
    return {f"{name}{key}": Row(row.config, row.settings | more) for key, more in TUNING.items()}


TOKENS = {"MODEL.AUXILIARY.TOKENS.WEIGHT": 1.0}
ALL_CAPTIONS = {"DATA.CAPTIONS_PER_IMAGE": "all"}
IDF = {"MODEL.TOKEN_WEIGHTING": "idf"}

ROWS: dict[str, Row] = {
    **tuned("bicaptioning", Row()),
    **tuned("token classification", Row("rsicd/token_classification")),
    "captioning": Row(settings=ONE_DIRECTION),
    "parallel captioning": Row(settings=PARALLEL),
    **tuned("bicaptioning, tokens", Row(settings=TOKENS)),
    "bicaptioning, all captions": Row(settings=ALL_CAPTIONS),
    "bicaptioning, tokens, all captions": Row(settings=TOKENS | ALL_CAPTIONS | HIGH),
    "parallel captioning, tokens": Row(settings=PARALLEL | TOKENS | HIGH),
}
