"""Evaluation of backbones by a protocol: data, features, figures and their records."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never, get_args

import numpy as np
import numpy.typing as npt
import torch

from virtex.build.images import pixel_settings
from virtex.build.transforms import transform_steps
from virtex.config.data import Data
from virtex.data.images import OnBadImage
from virtex.data.pixel_sample import pixel_lines
from virtex.data.sources.labelled import LabelledData, read_labelled
from virtex.distributed.world import ALONE, World
from virtex.errors import UserError, first_few
from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.captioned_images import captioned_images
from virtex.evaluation.feature_cache import cached_features
from virtex.evaluation.features import (
    Features,
    FeatureSettings,
    check_images,
    data_hash,
)
from virtex.evaluation.figures import Figure
from virtex.evaluation.options import naming_options
from virtex.evaluation.preprocessing import Preprocessing
from virtex.evaluation.protocols.knn import KS, knn
from virtex.evaluation.protocols.linear import PENALTIES, linear
from virtex.evaluation.protocols.low_shot import COUNTS, DRAWS, low_shot
from virtex.evaluation.protocols.split import Split
from virtex.evaluation.protocols.voc07 import COSTS, FOLDS, import_linear_svc, voc07
from virtex.evaluation.protocols.words import choose_words, words
from virtex.evaluation.results import Result, to_results

LabelledProtocol = Literal["knn", "linear", "low-shot", "voc07"]
ProtocolName = Literal[LabelledProtocol, "words"]
Engine = Literal["sklearn", "torch"]


Advance = Callable[[int], None]
Fitting = Callable[[int, str], AbstractContextManager[Advance]]
"""Maps the number of units of work, and their name, to a context that counts them."""


@dataclass(frozen=True)
class EvaluationData:
    """The image files of both splits, the hash of the data, and what there is to report of them.

    `figures` maps the features of the images that could be read, and their positions in `train` and
    `test`, to the protocol's figures; it counts `fits` units of work, named `units`, by a callable.
    """

    root: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    sha256: str
    report: tuple[str, ...]
    fits: int
    units: str
    figures: Callable[[Features, Features, Advance], list[Figure]]

    @property
    def images(self) -> int:
        """The number of images in both splits."""
        return len(self.train) + len(self.test)


def open_evaluation(
    protocol: ProtocolName, root: Path, *, seed: int = 0, engine: Engine = "sklearn"
) -> EvaluationData:
    """Read the labels, or the captions for `words`, that a protocol needs.

    Raises `UserError` for data that the protocol cannot judge.
    """
    known = get_args(ProtocolName)
    if protocol not in known:
        raise UserError(f"the protocol is {protocol!r}; expected one of {', '.join(known)}")
    if protocol == "words":
        return captioned_evaluation(root, seed)
    with naming_options():
        data = read_labelled(root, seed)
    return labelled_evaluation(protocol, root, data, seed=seed, engine=engine)


def labelled_evaluation(
    protocol: LabelledProtocol,
    root: Path,
    data: LabelledData,
    *,
    seed: int = 0,
    engine: Engine = "sklearn",
) -> EvaluationData:
    """As `open_evaluation`, for labelled images that are read already, with the same seed."""
    _check_labels(protocol, data, engine)

    def split(images_labels: npt.NDArray[np.int64] | npt.NDArray[np.int8], of: Features) -> Split:
        return Split(of.values, torch.from_numpy(images_labels[of.kept]), data.classes)

    def figures(train: Features, test: Features, advance: Advance) -> list[Figure]:
        splits = split(data.train.labels, train), split(data.test.labels, test)
        match protocol:
            case "knn":
                return knn(*splits, advance=advance)
            case "linear":
                return linear(*splits, seed, advance=advance)
            case "low-shot":
                return low_shot(*splits, seed=seed, advance=advance)
            case "voc07":
                return voc07(*splits, engine, advance)
            case _:
                assert_never(protocol)

    kind = "any number of labels" if data.several else "one label"
    labels = np.concatenate([data.train.labels, data.test.labels])
    return EvaluationData(
        root,
        data.train.paths,
        data.test.paths,
        data_hash(data.directory, (*data.train.paths, *data.test.paths), labels),
        (
            f"{len(data.classes)} classes, {kind} an image: {len(data.train)} training and "
            f"{len(data.test)} test images ({data.kind})",
            *data.report,
        ),
        *_work(protocol, data),
        figures,
    )


def _check_labels(protocol: ProtocolName, data: LabelledData, engine: Engine) -> None:
    """Raise `UserError` for what the protocol itself would refuse once the features are there."""
    labels = data.train.labels
    if protocol == "knn" and len(labels) < min(KS):
        raise UserError(
            f"--data {data.root} has {len(labels)} training images; knn needs at least {min(KS)}"
        )
    if protocol != "voc07":
        return
    if engine == "sklearn":
        import_linear_svc()
    own = labels == 1 if data.several else labels[:, None] == np.arange(len(data.classes))
    positives = own.sum(axis=0)
    if np.minimum(positives, len(labels) - positives).max() < FOLDS:
        raise UserError(
            f"--data {data.root}: voc07 needs a class with {FOLDS} positive and {FOLDS} negative "
            "training images"
        )


def _work(protocol: LabelledProtocol, data: LabelledData) -> tuple[int, str]:
    """How many units of work a protocol counts, about, and their name."""
    match protocol:
        case "knn":
            return len(data.test), "images"
        case "linear":
            return len(PENALTIES), "penalties"
        case "low-shot":
            labels = data.train.labels
            members = (labels == 1).sum(axis=0) if data.several else np.bincount(labels)
            return DRAWS * sum(count <= members.min() for count in COUNTS), "fits"
        case "voc07":
            return len(COSTS) * len(data.classes), "fits"
        case _:
            assert_never(protocol)


def captioned_evaluation(root: Path, seed: int = 0, settings: Data | None = None) -> EvaluationData:
    """As `open_evaluation` for `words`, of the data that the `settings` of a run describe."""
    found = [captioned_images(root, split, settings) for split in ("train", "val")]
    captions = [[record.captions for record in records] for records, _ in found]
    chosen = choose_words(captions[0], captions[1])
    train, test = (tuple(Path(str(record.image)) for record in records) for records, _ in found)

    def figures(train: Features, test: Features, advance: Advance) -> list[Figure]:
        of_train, of_test = (
            [texts[position] for position in features.kept]
            for texts, features in zip(captions, (train, test), strict=True)
        )
        return words(
            *(of_train, train.values, of_test, test.values),
            seed=seed,
            advance=advance,
            # Words of images that cannot be read do not count.
            chosen=chosen if len(of_train) + len(of_test) == sum(map(len, captions)) else None,
        )

    texts = "\n".join("\0".join(caption) for split in captions for caption in split)
    content = np.frombuffer(texts.encode("utf-8", "surrogatepass"), np.uint8)
    return EvaluationData(
        root,
        train,
        test,
        data_hash(root, (*train, *test), content),
        (
            f"{len(train)} training and {len(test)} test images with captions",
            *(line for _, report in found for line in report),
        ),
        len(PENALTIES),
        "penalties",
        figures,
    )


def preprocessing(protocol: ProtocolName, backbone: EvaluatedBackbone) -> Preprocessing:
    """The transforms of validation in pretraining; for `voc07` a margin of 256 to 224 pixels, as
    published."""
    size, data = backbone.image_size, backbone.config.data
    if protocol == "voc07":
        return Preprocessing.resize_and_crop(round(size * 256 / 224), size, pixel_settings(data))
    return Preprocessing(tuple(transform_steps(data.transforms_val, size)), pixel_settings(data))


def evaluate_backbones(
    protocol: ProtocolName,
    data: EvaluationData,
    backbones: Sequence[EvaluatedBackbone],
    settings: FeatureSettings,
    *,
    seed: int = 0,
    on_bad_image: OnBadImage = "error",
    say: Callable[[str], None] = lambda _: None,
    advance: Advance = lambda _: None,
    fitting: Fitting = lambda *_: nullcontext(lambda _: None),
    world: World = ALONE,
) -> Iterator[list[Result]]:
    """The results of each backbone, as they are found; no results on other ranks than 0.

    `say` gets messages about bad images, `advance` counts images, and `fitting` the work after
    that. The features are computed by all processes of `world`. Raises `UserError` for images that
    cannot be read unless `on_bad_image` is skip.
    """
    with world.shared_errors():
        check_images((*data.train, *data.test), on_bad_image)
    for backbone in backbones:
        steps = preprocessing(protocol, backbone)
        _report_pixels(data.train, steps, settings, say, world)
        found = [
            cached_features(
                *(backbone.module, backbone.sha256, paths, steps, settings, advance), world=world
            )
            for paths in (data.train, data.test)
        ]
        results: list[Result] = []
        with world.shared_errors():
            parts = [part for part in found if part is not None]
            if parts:
                _check_bad(parts, data.images, on_bad_image, say)
                common = {
                    "image_size": backbone.image_size,
                    "transforms": list(map(str, steps.steps)),
                    "precision": settings.precision.name,
                    **steps.pixels.record,
                }
                with fitting(data.fits, data.units) as fitted:
                    figures = data.figures(parts[0], parts[1], fitted)
                results = to_results(
                    figures,
                    protocol,
                    backbone,
                    data=data.sha256,
                    root=data.root,
                    seed=seed,
                    settings=common,
                )
        yield results


def _report_pixels(
    paths: Sequence[Path],
    steps: Preprocessing,
    settings: FeatureSettings,
    say: Callable[[str], None],
    world: World,
) -> None:
    """Report on rank 0 what a sample of the images tells about their values."""
    with world.shared_errors():
        for line in pixel_lines(paths, steps.pixels, settings.limits) if world.main else ():
            say(line)


def _check_bad(
    parts: Sequence[Features], images: int, on_bad_image: OnBadImage, say: Callable[[str], None]
) -> None:
    """Report the images that could not be read, or raise `UserError`."""
    bad = [line for part in parts for line in part.bad]
    if not bad:
        return
    message = f"{len(bad)} of {images} images cannot be read: {first_few(bad)}"
    if on_bad_image == "error":
        raise UserError(f"{message}; repair or remove them, or give --on-bad-image skip")
    say(f"{message}; they are left out")
