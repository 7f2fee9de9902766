"""The settings of where captioned images are, and of how their captions are written."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from virtex.config.section import Conflict, Section, reports_conflicts

CaptionFormat = Literal["coco", "table", "folder", "shards"]

_UTF_8 = "utf-8"
_TAB_NAMES = ("tab", "\\t")
_NOT_SEPARATORS = "\"'\r\n\0"


def parse_separator(text: str | None) -> str | None:
    if text in _TAB_NAMES:
        return "\t"
    if text is not None and (len(text) != 1 or text in _NOT_SEPARATORS):
        raise ValueError(
            "expected one character that is not a quotation mark, such as ';', or tab; or null"
        )
    return text


def parse_encoding(name: str) -> str:
    try:
        "\n".encode(name)
    except (LookupError, ValueError):
        raise ValueError(
            "expected the name of a text encoding, such as utf-8, cp1252 or shift_jis"
        ) from None
    return name


Separator = Annotated[
    str | None,
    AfterValidator(parse_separator),
    Field(
        description="Character between the values of a .csv or .tsv table, such as ';', or tab; "
        "null selects a comma or a tab by the extension."
    ),
]
ImageSeparator = Annotated[
    str | None,
    AfterValidator(parse_separator),
    Field(
        description="Character between the paths of several images of one caption in .csv and .tsv "
        "tables, such as '|'; .jsonl and .parquet may have lists. One of the images is drawn in "
        "each step."
    ),
]
Encoding = Annotated[
    str,
    AfterValidator(parse_encoding),
    Field(
        description="Encoding of .csv, .tsv and .jsonl tables, and of the .txt captions of folders "
        "and shards, such as cp1252."
    ),
]
ImageDirectory = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Directory that the paths of images in a table are relative to, itself "
        "relative to the table; null selects the directory of the table.",
    ),
]
GroupColumn = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Column of a table that names the patient, scene or product of an image. "
        "Images of one group are never split between training and validation.",
    ),
]
ValShare = Annotated[
    float | None,
    Field(
        gt=0,
        lt=1,
        description="Share of the training images to draw for validation, for data without a "
        "validation split. An image or group is drawn by a hash of VAL_SEED and its id, so it "
        "stays on its side when others are added.",
    ),
]
_ColumnName = Annotated[str | None, Field(min_length=1)]


class Columns(Section):
    """The names of a table's columns; null selects a well-known name.

    In .jsonl tables and in the .json members of shards, they are the keys of an object.
    """

    image: _ColumnName = Field(
        default=None,
        description="Column of the image's path, relative to IMAGE_DIRECTORY; null selects image, "
        "or filepath, path or file_name.",
    )
    caption: _ColumnName = Field(
        default=None,
        description="Column of the caption, also a key of the .json members of shards; null "
        "selects caption, or title or text.",
    )
    split: _ColumnName = Field(
        default=None,
        description="Column that names the split of a row, train or val, in the one table of ROOT; "
        "rows of other splits are not used. null expects a table for each split.",
    )
    id: _ColumnName = Field(
        default=None,
        description="Column of the image's id, an integer; null selects image_id if the table has "
        "it, and otherwise a hash of the path.",
    )


class Layout(Protocol):
    """What `Source` and `Data` have in common."""

    @property
    def format(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def columns(self) -> Columns: ...
    @property
    def separator(self) -> str | None: ...
    @property
    def image_separator(self) -> str | None: ...
    @property
    def image_directory(self) -> str | None: ...
    @property
    def encoding(self) -> str: ...
    @property
    def group_column(self) -> str | None: ...
    @property
    def val_share(self) -> float | None: ...


class Source(Section):
    """One of several sources of training data."""

    format: CaptionFormat = Field(description="Format of the data in ROOT, as in DATA.FORMAT.")
    root: Annotated[str, Field(min_length=1)] = Field(
        description="Root directory of the data, or address of shards, as in DATA.ROOT."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="Share of the samples of an epoch that this source gives, relative to the "
        "weights of the others.",
    )
    columns: Columns = Columns()
    separator: Separator = None
    image_separator: ImageSeparator = None
    image_directory: ImageDirectory = None
    encoding: Encoding = _UTF_8
    group_column: GroupColumn = None
    val_share: ValShare = None

    @reports_conflicts
    def _conflicts(self) -> Iterator[Conflict]:
        for keys, reason in layout_conflicts(self):
            yield ("DATA.SOURCES",), f"the source {self.root}: {', '.join(keys)}: {reason}"
        if self.format != "shards" and "://" in self.root:
            yield (
                ("DATA.SOURCES",),
                f"the source {self.root}: expected a directory on a local or mounted disk, as only "
                "shards are read from an address; copy it, or set its FORMAT to shards",
            )


def layout_conflicts(data: Layout) -> Iterator[Conflict]:
    """Settings that do not apply to the format, or that contradict each other.

    The keys are without the name of a section.
    """
    columns = {f"COLUMNS.{name.upper()}": value for name, value in columns_of(data.columns).items()}
    given: dict[str, tuple[object, tuple[str, ...]]] = {
        **{key: (value, ("table",)) for key, value in columns.items()},
        "COLUMNS.CAPTION": (data.columns.caption, ("table", "shards")),
        "SEPARATOR": (data.separator, ("table",)),
        "IMAGE_SEPARATOR": (data.image_separator, ("table",)),
        "IMAGE_DIRECTORY": (data.image_directory, ("table",)),
        "ENCODING": (None if data.encoding == _UTF_8 else 1, ("table", "folder", "shards")),
        "GROUP_COLUMN": (data.group_column, ("table",)),
        "VAL_SHARE": (data.val_share, ("coco", "table", "folder", "shards")),
    }
    for key, (value, formats) in given.items():
        if value is not None and data.format not in formats:
            yield (
                (key, "FORMAT"),
                f"expected this setting only with the format {' or '.join(formats)}; remove it",
            )
    if data.val_share is not None and data.columns.split is not None:
        yield (
            ("VAL_SHARE", "COLUMNS.SPLIT"),
            "expected only one of them, as either determines the validation split; remove one",
        )


def columns_of(columns: Columns) -> dict[str, Any]:
    """The names of the columns by field."""
    return {name: getattr(columns, name) for name in type(columns).model_fields}
