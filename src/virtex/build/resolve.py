"""The settings that only the data, the vocabulary or the network tell: sizes, ids and length.

Each is taken from there where the configuration does not give it, and must match where it does.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import assert_never

from virtex.build.model import check_settings
from virtex.config.optim import Optim
from virtex.config.schema import Config
from virtex.config.section import conflict_text
from virtex.errors import UserError
from virtex.models.networks import feature_size
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import (
    Categories,
    Classes,
    Vocabulary,
    check_categories,
    check_classes,
    check_tokenizer,
)


def resolve_sizes(config: Config, vocabulary: Vocabulary, source: str) -> Config:
    """The configuration with sizes and ids, those of `vocabulary` and of the network.

    `source` names the vocabulary in messages. Raises `UserError` if a value that is given differs,
    or if a value that was not given conflicts with other settings.
    """
    _check_vocabulary(config, vocabulary, source)
    data, visual = config.data, config.model.visual
    found = {"vocab_size": vocabulary.vocab_size, **_ids(config, vocabulary)}
    new = {name: value for name, value in found.items() if getattr(data, name) is None}
    if not new and visual.feature_size is not None:
        return config
    width = visual.feature_size or feature_size(visual.network)
    visual = visual.model_copy(update={"feature_size": width})
    model = config.model.model_copy(update={"visual": visual})
    resolved = config.model_copy(update={"data": data.model_copy(update=new), "model": model})
    conflicts = conflict_text(check_settings(resolved))
    if conflicts:
        raise UserError(f"the vocabulary {source} has {vocabulary.vocab_size} entries: {conflicts}")
    return resolved


def resolve_length(config: Config, images: int) -> Config:
    """The configuration with the number of iterations that `OPTIM.NUM_EPOCHS` is.

    `images` is the number of images that are trained on. Raises `UserError` if warm-up and steps of
    the learning rate do not lie within the run.
    """
    optim = config.optim
    if optim.num_epochs is None:
        return config
    iterations = iterations_of(optim.num_epochs, images, optim.batch_size)
    problems = _outside(optim, iterations)
    if problems:
        raise UserError(
            f"OPTIM.NUM_EPOCHS {optim.num_epochs:g} is {iterations:,} iterations of "
            f"{optim.batch_size} images, as there are {images:,} training images, but "
            f"{' and '.join(problems)}; lower these, or set OPTIM.NUM_EPOCHS higher"
        )
    # Without the epochs, so that a file of these settings gives the same run.
    length = {"num_iterations": iterations, "num_epochs": None}
    return config.model_copy(update={"optim": optim.model_copy(update=length)})


def iterations_of(epochs: float, images: int, batch_size: int) -> int:
    """The number of batches that hold `epochs` passes over the images, rounded up."""
    return math.ceil(Fraction(repr(epochs)) * images / batch_size)


def image_stages(config: Config) -> list[tuple[int, int]]:
    """The last iterations of `DATA.IMAGE_SIZES`, ascending, and their sizes in pixels.

    A share of less than one iteration has none.
    """
    stages: dict[int, int] = {}
    for share, size in config.data.image_sizes:
        stages.setdefault(math.floor(Fraction(repr(share)) * config.optim.iterations), size)
    return [(last, size) for last, size in stages.items() if last > 0]


def _outside(optim: Optim, iterations: int) -> list[str]:
    """What does not lie within a run of so many iterations, with its values."""
    problems = []
    if optim.warmup_steps >= iterations:
        problems.append(f"OPTIM.WARMUP_STEPS is {optim.warmup_steps:,}")
    late = [step for step in optim.lr_steps if step >= iterations]
    if late and optim.lr_decay_name == "multistep":
        problems.append(f"OPTIM.LR_STEPS has {', '.join(map(str, late))}")
    return problems


def _ids(config: Config, vocabulary: Vocabulary) -> Mapping[str, int]:
    """The ids of special tokens by field; without tokens, the lowest that are not given."""
    names = ("unk_index", "sos_index", "eos_index", "mask_index")
    if isinstance(vocabulary, Tokenizer):
        return {name: getattr(vocabulary, name) for name in names}
    given = set(config.data.special_ids.values())
    free = [index for index in range(2 * len(names)) if index not in given]
    missing = [name for name in names if getattr(config.data, name) is None]
    return dict(zip(missing, free, strict=False))


def _check_vocabulary(config: Config, vocabulary: Vocabulary, source: str) -> None:
    """Raise `UserError` unless the sizes and ids that are given match the vocabulary."""
    data = config.data
    match vocabulary:
        case Tokenizer():
            check_tokenizer(
                vocabulary,
                source=source,
                vocab_size=data.vocab_size,
                unk_index=data.unk_index,
                sos_index=data.sos_index,
                eos_index=data.eos_index,
                mask_index=data.mask_index,
                text_normalization=data.text_normalization,
            )
        case Categories():
            check_categories(vocabulary, source=source, vocab_size=data.vocab_size)
        case Classes():
            check_classes(vocabulary, source=source, vocab_size=data.vocab_size)
        case _:
            assert_never(vocabulary)
