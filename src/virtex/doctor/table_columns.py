"""Which columns of a table have captions, splits, groups and ids, by their content and names."""

from collections.abc import Sequence
from typing import Any

from virtex.data.sources.table_layout import CAPTIONS, IMAGE_ID
from virtex.doctor.column_names import CAPTION_NAMES, GROUP_NAMES, plain_name
from virtex.doctor.detected import GIVEN, Choice, quoted
from virtex.doctor.image_column import has_image_extension
from virtex.doctor.table_sample import TableSample, named_columns
from virtex.errors import UserError
from virtex.text.scripts import is_unspaced

_TRAINING = frozenset(("train", "training"))
_VALIDATION = frozenset(("val", "valid", "validation", "dev"))
_SPLITS = _TRAINING | _VALIDATION | {"test", "testing", "eval"}


def find_caption_column(
    sample: TableSample, images: str, name: str | None = None
) -> tuple[Choice, tuple[str, ...]]:
    """The column of captions, and the names of others that hold texts too.

    It is the one that is called so, or else that with the longest text. `images` is the name of
    the column of images. Raises UserError if there is no text.
    """
    lengths = {
        column: length
        for column in named_columns(sample, name, "--caption-column")
        if column != images and (length := text_length(sample.values[column]))
    }
    if name is not None and name != images:
        return Choice("DATA.COLUMNS.CAPTION", name, GIVEN), ()
    if not lengths:
        left = [column for column in sample.values if column != images]
        raise UserError(
            f"{sample.path} has images in the column {images!r}, but no column with texts of"
            f" several words; its other columns are {quoted(left) or 'none'}. Training needs"
            " captions, which are sentences about the images, not labels; name their column as"
            " --caption-column"
        )
    known = [column for column in lengths if plain_name(column) in CAPTION_NAMES]
    best = max(known or lengths, key=lambda each: (each in ("caption", CAPTIONS), lengths[each]))
    reason = f"it holds texts of {lengths[best]:.0f} characters on average"
    if name is None and best not in known:
        reason += ", the longest of all columns; its name is not known"
    others = tuple(column for column in lengths if column != best)
    return Choice("DATA.COLUMNS.CAPTION", best, reason), others


def text_length(values: Sequence[Any]) -> float:
    """The mean number of characters, or 0 for values that are mostly no sentences."""
    texts = [text.strip() for value in values for text in _texts(value) if text.strip()]
    sentences = [text for text in texts if is_sentence(text)]
    if not texts or 2 * len(sentences) < len(texts):
        return 0.0
    return sum(map(len, texts)) / len(texts)


def _texts(value: Any) -> list[str]:
    return [
        text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
    ]


def is_sentence(text: str) -> bool:
    """Whether a text has two words with letters, or is of a script without spaces; not a path."""
    if has_image_extension(text) or "://" in text:
        return False
    words = [word for word in text.split() if any(map(str.isalpha, word))]
    return len(words) > 1 or sum(map(is_unspaced, text)) > 3


def find_split_column(sample: TableSample, name: str | None = None) -> tuple[Choice | None, str]:
    """The column that names the split of a row, if there is one, and what to check of it.

    A column of which no value is that of validation cannot be used, and is only spoken of.
    """
    for column in named_columns(sample, name, "--split-column"):
        values = {str(value).strip().lower() for value in sample.values[column] if value}
        if name is None and not (values and values <= _SPLITS and values & _TRAINING):
            continue
        if name is not None or values & _VALIDATION:
            shown = ", ".join(sorted(values)[:6])
            unused = "; rows of other splits than train and val are not used"
            reason = f"its values are {shown}" + (
                unused if values - _TRAINING - _VALIDATION else ""
            )
            return Choice("DATA.COLUMNS.SPLIT", column, reason), ""
        if values - _TRAINING:
            return None, (
                f"The column {column!r} has rows of {quoted(sorted(values))}, and none is called"
                " val. All of them are used for training, and a part is drawn for validation; to"
                " keep some out, remove their rows, or call them val."
            )
    return None, ""


def find_group_column(
    sample: TableSample, images: str, taken: Sequence[str], name: str | None = None
) -> Choice | None:
    """The column that names what an image is of, such as the patient, if its values repeat.

    Columns whose value differs between rows of one image are not groups.
    """
    for column in named_columns(sample, name, "--group-column"):
        values = [str(value or "").strip() for value in sample.values[column]]
        pairs = {
            (str(image), value)
            for image, value in zip(sample.values[images], values, strict=True)
            if value
        }
        groups, members = {value for _, value in pairs}, {image for image, _ in pairs}
        is_group = 1 < len(groups) < len(pairs) == len(members)
        if name is None and not (
            is_group and column not in taken and plain_name(column) in GROUP_NAMES
        ):
            continue
        reason = (
            f"{len(groups):,} values for {len(members):,} images: all images of one stay on one"
            " side of the validation split"
        )
        return Choice("DATA.GROUP_COLUMN", column, reason)
    return None


def find_id_column(sample: TableSample, name: str | None, images: str) -> Choice | None:
    """The column of ids if the user names it; raises UserError for one that cannot be used."""
    if name is not None:
        return Choice("DATA.COLUMNS.ID", named_columns(sample, name, "--id-column")[0], "as given")
    ids = sample.values.get(IMAGE_ID, [])
    wrong = next((value for value in ids if not _is_whole(value)), None)
    if wrong is not None and images != IMAGE_ID:
        raise UserError(
            f"{sample.path}: the column 'image_id' has values such as {wrong!r}, and ids must be"
            " whole numbers; rename the column, or name another one as --id-column"
        )
    return None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) or (
        isinstance(value, str) and value.removeprefix("-").isdecimal()
    )
