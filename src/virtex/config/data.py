"""The settings of the data set and its preprocessing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from virtex.config.pixels import (
    RGB,
    Bands,
    Frame,
    Percentiles,
    PixelRange,
    Window,
    needs_statistics,
    pixel_conflicts,
)
from virtex.config.section import Conflict, LocalPath, Section, parsed_by, reports_conflicts
from virtex.config.sources import (
    Columns,
    Encoding,
    GroupColumn,
    ImageDirectory,
    ImageSeparator,
    Separator,
    Source,
    ValShare,
    layout_conflicts,
)
from virtex.config.specs import (
    LANGUAGES,
    TransformSpec,
    parse_mirror_words,
    parse_transforms,
)

_LAYOUT = (
    *("columns", "separator", "image_separator", "image_directory", "encoding", "group_column"),
    "val_share",
)
"""The fields that `Source` has too."""

STRIDE = 32
"""Pixels a side, at most, that a network reduces to one position."""

Transforms = Annotated[tuple[str, ...], parsed_by(parse_transforms)]
MirrorWordsText = Annotated[tuple[str, ...], parsed_by(parse_mirror_words)]


ImageStage = tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[int, Field(ge=32)]]


class MaskedLM(Section):
    """Which tokens of a caption masked language modelling predicts, and their replacements."""

    mask_proportion: float = Field(
        default=0.15,
        gt=0,
        le=1,
        description="Fraction of the tokens of a caption to predict, rounded up.",
    )
    mask_probability: float = Field(
        default=0.85,
        ge=0,
        le=1,
        description="Probability that a token to predict is replaced by [MASK].",
    )
    replace_probability: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="Probability that a token to predict is replaced by a random token; otherwise "
        "it is kept.",
    )

    @reports_conflicts
    def _conflicts(self) -> Iterator[Conflict]:
        if self.mask_probability + self.replace_probability > 1:
            yield (
                ("DATA.MASKED_LM.MASK_PROBABILITY", "DATA.MASKED_LM.REPLACE_PROBABILITY"),
                "expected two probabilities that add up to at most 1; set REPLACE_PROBABILITY to "
                f"at most {1 - self.mask_probability:g}",
            )


class Data(Section):
    """The data set and its preprocessing."""

    format: Literal["coco", "table", "folder", "shards", "labelled"] = Field(
        default="coco",
        description="Format of the data in ROOT: COCO, with annotations/, train2017/ and "
        "val2017/; a table of image files and captions; folders train/ and val/ of images, each "
        "with a .txt file of captions; tar shards in train/ and val/, as "
        "written by `virtex pack`, WebDataset and img2dataset; or, for image_classification, "
        "labelled images in any form that `virtex evaluate` reads.",
    )
    root: str = Field(
        default="datasets/coco",
        min_length=1,
        description="Root directory of the data; for shards also an address such as "
        "s3://bucket/directory, for labelled also a .csv or .tsv file, for table also the file of "
        "all splits.",
    )
    columns: Columns = Columns()
    separator: Separator = None
    image_separator: ImageSeparator = None
    image_directory: ImageDirectory = None
    encoding: Encoding = "utf-8"
    group_column: GroupColumn = None
    val_share: ValShare = None
    val_seed: int = Field(
        default=0,
        ge=0,
        description="Seed by which VAL_SHARE draws. It is not RANDOM_SEED, so that runs with "
        "several seeds are validated on the same images.",
    )
    sources: tuple[Source, ...] = Field(
        default=(),
        description="Several sources to train on together, each with FORMAT, ROOT, WEIGHT and the "
        "settings of its layout, in place of those of this section. An epoch has as many samples "
        "as all sources together; a source gives the share of its weight, in its own shuffled "
        "order, and starts over when it is exhausted.",
    )
    cache_dir: LocalPath | None = Field(
        default=None,
        description="Directory for files fetched from an address, and for indexes of shards that "
        "cannot be written beside them; null selects virtex/ in the user's cache directory.",
    )
    cache_gb: float = Field(
        default=50.0,
        gt=0,
        description="Maximum size of the fetched data in CACHE_DIR, in units of 10^9 bytes.",
    )
    shuffle_window: int = Field(
        default=131072,
        ge=1,
        description="Number of samples of shards that are shuffled together, after the order of "
        "the shards is shuffled; rounded to whole shards. All other formats are always shuffled "
        "globally.",
    )
    tokenizer_model: LocalPath = Field(
        default=Path("datasets/vocab/coco_10k.model"),
        description="SentencePiece model of the vocabulary.",
    )
    vocab_size: int | None = Field(
        default=None,
        ge=1,
        description="Size of the vocabulary. For multilabel classification it is the number of "
        "categories plus the background: 81 for COCO. For image classification it is the number "
        "of classes. null takes it, as the four ids, from the tokenizer or the data; values that "
        "are given must match these.",
    )
    unk_index: int | None = Field(
        default=None,
        ge=0,
        description="Id of unknown tokens, which is also used to pad short captions.",
    )
    sos_index: int | None = Field(
        default=None, ge=0, description="Id of [SOS], which begins a caption."
    )
    eos_index: int | None = Field(
        default=None, ge=0, description="Id of [EOS], which ends a caption."
    )
    mask_index: int | None = Field(
        default=None, ge=0, description="Id of [MASK], which hides a token in masked_lm."
    )
    text_normalization: Literal["published", "nfkc_lower", "nfc", "none"] = Field(
        default="published",
        description="Normalisation of captions, which must be that of the vocabulary: NFKD in "
        "lower case without accents and other marks (published), which damages many languages "
        "besides English; NFKC in lower case (nfkc_lower); NFC with capitals (nfc); or none.",
    )
    mirror_words: MirrorWordsText = Field(
        default=("english",),
        description="Words that are exchanged in the captions of images that horizontal_flip "
        f"mirrors: names of languages ({', '.join(LANGUAGES)}) and own pairs such as "
        "'backbord/steuerbord'. Earlier ones have priority. An empty list exchanges none.",
    )
    image_crop_size: int = Field(
        default=224,
        ge=32,
        description="Side length of the input images in pixels; at least 32, the stride of the "
        "backbone.",
    )
    image_sizes: tuple[ImageStage, ...] = Field(
        default=(),
        description="Smaller training images at the beginning of the run: pairs of a share of the "
        "iterations, up to which a size is used, and the size in pixels, such as [[0.5, 128], "
        "[0.8, 192]]. Afterwards, and in validation, images have IMAGE_CROP_SIZE.",
    )
    max_caption_length: int = Field(
        default=30,
        ge=3,
        description="Maximum number of tokens in a caption, with [SOS] and [EOS]; longer captions "
        "are truncated to bound memory and time.",
    )
    long_captions: Literal["cut", "sentences"] = Field(
        default="cut",
        description="What to do with a caption of more than MAX_CAPTION_LENGTH tokens: cut it, or "
        "draw one of its sentences and add those that follow as long as they fit.",
    )
    use_percentage: float = Field(
        default=100.0,
        gt=0,
        le=100,
        description="Percentage of the training images to use, for studies with less data. The "
        "choice depends only on RANDOM_SEED and the image ids.",
    )
    subset_manifest: LocalPath | None = Field(
        default=None,
        description="File that lists the images to train on, whatever the seed: the subset.json "
        "of a run, or a list of your own.",
    )
    use_single_caption: bool = Field(
        default=False,
        description="Use only the first caption of a training image instead of a random one.",
    )
    captions_per_image: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default=1,
        description="Number of captions that are drawn of a training image at a time, none twice, "
        "or all. An image with fewer captions gives all that it has. The backbone computes the "
        "image once for all of them. Validation draws one caption.",
    )
    masked_lm: MaskedLM = MaskedLM()
    image_transform_train: Transforms = Field(
        default=("random_resized_crop", "horizontal_flip", "color_jitter", "normalize"),
        description="Transforms of training images, in order. Arguments are written as in "
        "\"random_resized_crop::{'scale': (0.08, 1.0)}\".",
    )
    image_transform_val: Transforms = Field(
        default=("smallest_resize", "center_crop", "normalize"),
        description="Transforms of validation images, in order.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        default="error",
        description="What to do with an image that cannot be read: stop the run (error), or "
        "report it and use the next image in its place (skip).",
    )
    max_pixels: int = Field(
        default=178_956_970,
        ge=1,
        description="Maximum number of pixels in an image, as a small file can decode to more "
        "than fits in memory. Reading an image takes up to 15 bytes per pixel.",
    )
    max_image_mb: int = Field(
        default=256, ge=1, description="Maximum size of an image file in MiB."
    )
    pixel_range: PixelRange = Field(
        default="auto",
        description="Values that become 0 and 255 in images of more than 8 bits: two numbers, or a "
        "pair for each of BANDS; percentiles of each image; or auto, for a range found in a sample "
        "of the training images when a run starts and kept in its checkpoints. 8-bit images are "
        "never changed.",
    )
    pixel_percentiles: Percentiles = Field(
        default=(0.5, 99.5),
        description="Percentiles of the values for PIXEL_RANGE percentiles, and for auto where the "
        "values are signed, floating-point, or few in the range of their type.",
    )
    bands: Bands | None = Field(
        default=None,
        description="Numbers of the bands to use, from 1, such as [4, 3, 2]; red, green and blue "
        "first if they are among them. null reads RGB, and grey as three equal bands.",
    )
    dicom_window: Window = Field(
        default="file",
        description="Window for grey DICOM images: that of the file, its centre and width, or none "
        "to map the values by PIXEL_RANGE.",
    )
    dicom_frame: Frame = Field(
        default="error",
        description="Frame to use of a DICOM image with several; error refuses them.",
    )

    @property
    def smallest_image_size(self) -> int:
        """The side of the smallest images of training."""
        return min([self.image_crop_size, *(size for _, size in self.image_sizes)])

    @property
    def transforms_train(self) -> tuple[TransformSpec, ...]:
        return parse_transforms(self.image_transform_train)

    @property
    def transforms_val(self) -> tuple[TransformSpec, ...]:
        return parse_transforms(self.image_transform_val)

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """`sources`, or the only one that `format`, `root` and the layout describe."""
        if self.sources:
            return self.sources
        assert self.format != "labelled", "labelled images have no captions"
        layout = {name: getattr(self, name) for name in _LAYOUT}
        return (Source.model_construct(format=self.format, root=self.root, **layout),)

    @property
    def band_count(self) -> int:
        """The number of bands of the images that the backbone gets."""
        return RGB if self.bands is None else len(self.bands)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation for each band; None if a sample of the images is to give them."""
        normalize = self.transforms_train[-1]
        if needs_statistics(normalize, self.band_count):
            return None
        return normalize.arguments["mean"], normalize.arguments["std"]

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of special tokens that are given, by their keys."""
        ids = {
            "DATA.UNK_INDEX": self.unk_index,
            "DATA.SOS_INDEX": self.sos_index,
            "DATA.EOS_INDEX": self.eos_index,
            "DATA.MASK_INDEX": self.mask_index,
        }
        return {key: index for key, index in ids.items() if index is not None}

    @reports_conflicts
    def _conflicts(self) -> Iterator[Conflict]:
        if len(set(self.special_ids.values())) < len(self.special_ids):
            yield tuple(self.special_ids), "expected different ids, those of the tokenizer"
        if self.use_single_caption and self.captions_per_image != 1:
            yield (
                ("DATA.USE_SINGLE_CAPTION", "DATA.CAPTIONS_PER_IMAGE"),
                "expected only one of them; set USE_SINGLE_CAPTION to false, or CAPTIONS_PER_IMAGE "
                "to 1",
            )
        yield from self._stage_conflicts()
        yield from self._source_conflicts()
        if self.format != "shards" and "://" in self.root:
            yield (
                ("DATA.FORMAT", "DATA.ROOT"),
                "expected a directory on a local or mounted disk; set ROOT to one, or FORMAT to "
                "shards",
            )
        if self.subset_manifest is not None and self.use_percentage != 100:
            yield (
                ("DATA.SUBSET_MANIFEST", "DATA.USE_PERCENTAGE"),
                "expected only one of them, as the manifest already lists the images to use; set "
                "SUBSET_MANIFEST to null, or USE_PERCENTAGE to 100",
            )
        all_transforms = (
            ("DATA.IMAGE_TRANSFORM_TRAIN", self.transforms_train),
            ("DATA.IMAGE_TRANSFORM_VAL", self.transforms_val),
        )
        yield from pixel_conflicts(self.pixel_range, self.band_count, all_transforms)
        for key, transforms in all_transforms:
            if any(0 < each.arguments.get("size", 0) < self.image_crop_size for each in transforms):
                yield (
                    (key, "DATA.IMAGE_CROP_SIZE"),
                    "expected a size of smallest_resize that is not below the crop size; 0 stands "
                    "for the crop size",
                )
        if self.transforms_train[-1] != self.transforms_val[-1]:
            # The model itself normalises, in training and in validation alike.
            yield (
                ("DATA.IMAGE_TRANSFORM_TRAIN", "DATA.IMAGE_TRANSFORM_VAL"),
                "expected normalize with the same mean and std in both",
            )

    def _stage_conflicts(self) -> Iterator[Conflict]:
        shares = [share for share, _ in self.image_sizes]
        if shares != sorted(set(shares)):
            yield ("DATA.IMAGE_SIZES",), "expected shares in increasing order, each once"
        rest = [size for _, size in self.image_sizes if size % STRIDE]
        if rest:
            yield (
                ("DATA.IMAGE_SIZES",),
                f"expected multiples of {STRIDE} pixels, the stride of the backbone; set "
                f"{rest[0]} to {round(rest[0] / STRIDE) * STRIDE}",
            )
        if any(size > self.image_crop_size for _, size in self.image_sizes):
            yield (
                ("DATA.IMAGE_SIZES", "DATA.IMAGE_CROP_SIZE"),
                "expected no size above the crop size, with which the run ends; set "
                f"IMAGE_CROP_SIZE to at least {max(size for _, size in self.image_sizes)}",
            )

    def _source_conflicts(self) -> Iterator[Conflict]:
        if not self.sources:
            for keys, reason in layout_conflicts(self):
                yield tuple(f"DATA.{key}" for key in keys), reason
            return
        fields = type(self).model_fields
        for name in ("format", "root", *_LAYOUT):
            # Compared with the default, which the resolved settings of a run spell out.
            if getattr(self, name) != fields[name].default:
                yield (
                    ("DATA.SOURCES", f"DATA.{name.upper()}"),
                    f"expected only one of them; set {name.upper()} in each of SOURCES, and leave "
                    "it at its default here",
                )
