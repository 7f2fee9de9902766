"""Checks that a run resumes as the one that saved its checkpoint: settings, vocabulary, data."""

from collections.abc import Sequence

from virtex.checkpoints.state import Checkpoint
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.data.contents import Contents, differences
from virtex.errors import UserError, first_few
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Classes, Vocabulary

_FIXED = {"OPTIM.OPTIMIZER_NAME", "OPTIM.LOOKAHEAD.USE", "OPTIM.NO_DECAY", "MODEL.VISUAL.FROZEN"}
"""Settings that cannot change during a run, because the optimizer's state depends on them."""


def check_same_run(
    before: Checkpoint,
    config: Config,
    vocabulary: Vocabulary,
    *,
    asked_for: Sequence[str],
    num_epochs: float | None = None,
) -> list[str]:
    """The settings that differ from the checkpoint's, each in a line for the user.

    `num_epochs` is the `OPTIM.NUM_EPOCHS` that the number of iterations in `config` follows from;
    that number may change with the data, which `check_same_data` compares.

    Raises `UserError` if a setting that is not among `asked_for` or cannot change during a run
    differs, or if the vocabulary does.
    """
    # Settings that are newer than the checkpoint have their defaults in its configuration.
    saved = settings.flat(before.config)
    now = settings.flat(config)
    notes = [] if num_epochs is None else _compare_epochs(saved, now, before.num_epochs, num_epochs)
    changed = {key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key)}
    fixed = sorted(changed & _FIXED)
    if fixed:
        raise UserError(
            f"--resume-from: {', '.join(fixed)} cannot change in the middle of a run; start a new "
            "run from the weights with --init-from"
        )
    unasked = sorted(changed - set(asked_for))
    if unasked:
        lines = [f"  {key}: was {saved.get(key)!r}, is {now.get(key)!r}" for key in unasked]
        raise UserError(
            "--resume-from: the configuration differs from the checkpoint's:\n"
            + "\n".join(lines)
            + "\nRestore the old values in the YAML file, or confirm new ones by repeating them "
            "after --config-override; --init-from starts a new run from the weights"
        )
    if isinstance(vocabulary, Classes) and before.vocabulary != vocabulary:
        raise UserError(
            "--resume-from: the classes of the data are not those that the checkpoint was trained "
            f"with: {_class_changes(before.vocabulary, vocabulary)}; restore them, or start a new "
            "run"
        )
    if not same_vocabulary(before.vocabulary, vocabulary):
        source = config.data.tokenizer_model if isinstance(vocabulary, Tokenizer) else "the data's"
        raise UserError(
            f"--resume-from: {source} is not the vocabulary that the checkpoint was trained with; "
            "its tokens would stand for other words"
        )
    requested = [f"changed on request: {key}, was {saved.get(key)!r}" for key in sorted(changed)]
    return [*requested, *notes]


def _compare_epochs(
    saved: dict[str, object], now: dict[str, object], before: float | None, num_epochs: float
) -> list[str]:
    """Compare the epochs of two runs in place of their iterations, if these differ.

    `saved` and `now` are settings by dotted key, and are changed. Returns a line for the user if
    the same epochs are another number of iterations.
    """
    iterations, epochs = "OPTIM.NUM_ITERATIONS", "OPTIM.NUM_EPOCHS"
    earlier, later = saved[iterations], now[iterations]
    if earlier == later:
        return []
    saved[iterations] = later
    saved[epochs], now[epochs] = before, num_epochs
    same = f"{epochs} {num_epochs:g} is {later} iterations here, was {earlier}"
    return [same] if before == num_epochs else []


def check_same_data(
    saved: Checkpoint, now: Contents, subset_change: str | None, *, accepted: bool
) -> list[str]:
    """Warnings about the data on which a checkpoint's run resumes, each in a line.

    `subset_change` describes how the training images have changed; None if they have not. Raises
    `UserError` if the data have changed, unless that is `accepted`.
    """
    before = saved.contents
    cautions: list[str] = []
    if before is None:
        cautions.append(
            "the checkpoint holds no fingerprints of its data, so changes in them go unnoticed"
        )
    changes = [] if before is None else differences(before, now)
    if subset_change is not None:
        changes.append(subset_change)
    if changes and not accepted:
        raise UserError(
            "--resume-from: the data are not those that the checkpoint was trained on:\n"
            + "".join(f"  {line}\n" for line in changes)
            + "Restore the old content of DATA.ROOT or of the subset's manifest, or accept the new "
            "one with --accept-changed-data"
        )
    if before is not None and not changes and before.order != now.order:
        cautions.append(
            "the data are the same but their order in training changes here: other shards hold "
            "them, or other settings select them"
        )
    return [*cautions, *(f"accepted by --accept-changed-data: {line}" for line in changes)]


def same_vocabulary(one: Vocabulary, other: Vocabulary) -> bool:
    """Whether two vocabularies give every index the same meaning."""
    if isinstance(one, Tokenizer) and isinstance(other, Tokenizer):
        return one.model_bytes == other.model_bytes
    return one == other


def _class_changes(before: Vocabulary, now: Classes) -> str:
    """What distinguishes the classes of a checkpoint from those of the data, in words."""
    if not isinstance(before, Classes):
        return "it has none"
    gone = [name for name in before.names if name not in now.names]
    new = [name for name in now.names if name not in before.names]
    parts = [f"{len(gone)} are missing ({first_few(gone)})"] if gone else []
    parts += [f"{len(new)} are new ({first_few(new)})"] if new else []
    if before.several != now.several:
        kinds = {False: "one label", True: "several labels"}
        parts.append(f"images had {kinds[before.several]} and now have {kinds[now.several]}")
    return ", ".join(parts) or "their order has changed"
