"""The checkup of a data set, or of a configuration with its data: all findings at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from virtex.build.caption_checks import check_captions
from virtex.build.images import image_limits, pixel_settings
from virtex.build.model import task_settings
from virtex.build.observer import Observer
from virtex.build.pixel_choice import chosen_range
from virtex.build.resolve import resolve_length, resolve_sizes
from virtex.build.sources import (
    OpenedSplits,
    ReportedRecords,
    caption_records,
    open_splits,
)
from virtex.checkpoints.file import Retention
from virtex.config.data import Data
from virtex.config.schema import Config
from virtex.data.images import BadImage
from virtex.data.loader import check_batch_size
from virtex.data.pixel_sample import (
    describe_ranges,
    evenly_spaced,
    range_problem,
    sample_pixels,
    sampled_images,
)
from virtex.data.records import Records
from virtex.data.subset import SubsetManifest
from virtex.doctor.captions import Caption, caption_findings, read_captions
from virtex.doctor.environment import disk_findings
from virtex.doctor.findings import BadImages, Finding
from virtex.doctor.image_facts import ImageFacts, image_facts
from virtex.doctor.images import by_digest, image_findings, leak_findings, leaks
from virtex.doctor.measured import measured_findings
from virtex.doctor.vocabulary import vocabulary_findings
from virtex.errors import UserError
from virtex.tasks import find_task
from virtex.tasks.caption_tokens import caption_tokens
from virtex.text.tokenizer import Tokenizer

MOST_CAPTIONED = 200_000
"""The number of images of a split whose captions are read at most."""
_SPLITS = {"train": "training", "val": "validation"}
Advance = Callable[[int], None]
Reading = Callable[[str, int], Any]
"""A context that shows progress, for a label and a number of images, and gives an `Advance`."""


@dataclass(frozen=True)
class Options:
    """How a checkup is made.

    `images` is how many images of each split are read at most, evenly spaced; 0 for none. `reading`
    shows the progress. `directory` is where the run would write. `measure` is whether training
    steps and the loader are measured.
    """

    images: int
    workers: int
    reading: Reading
    observer: Observer
    directory: Path
    retention: Retention
    measure: bool = False


@dataclass
class Checkup:
    """The findings so far, and the images of the training split that are fit to train on."""

    findings: list[Finding] = field(default_factory=list)
    training: ReportedRecords | None = None
    unfit: set[int] = field(default_factory=set)
    """Positions of training images."""

    def manifest(self) -> SubsetManifest | None:
        """The training images without those that are unfit; None if there are no others."""
        if self.training is None:
            return None
        ids = self.training.image_ids.tolist()
        fit = sorted(each for position, each in enumerate(ids) if position not in self.unfit)
        return SubsetManifest.from_ids(tuple(fit), len(ids)) if fit else None


def examine(config: Config, options: Options, checkup: Checkup, *, complete: bool) -> None:
    """Check data, captions, vocabulary and disk, and add the findings to `checkup`.

    `complete` is whether the configuration is that of a run, with a vocabulary and a network, or
    only says where the data are.
    """
    tokenizer = None
    if complete:
        tokenizer = _tokenizer(config, checkup)
        if tokenizer is not None:
            config = _resolved(config, tokenizer, checkup)
        checkup.findings += _disk(config, options)
    opened = _open(config, options, checkup, complete=complete)
    facts: dict[str, list[ImageFacts]] = {}
    data = _pixels(config.data, opened.get("train"), options, checkup)
    for split, records in opened.items():
        name = _SPLITS[split]
        captions = _captions(name, records, checkup)
        checkup.findings += caption_findings(name, captions)
        if tokenizer is not None:
            lengths = caption_tokens(tokenizer, task_settings(config), True)
            checkup.findings += vocabulary_findings(name, captions, tokenizer, lengths)
        crop = data.image_crop_size if complete else None
        facts[split] = _images(data, crop, records, split, options, checkup)
    checkup.training = opened.get("train")
    if checkup.training is not None:
        checkup.unfit |= _missing_positions(checkup.training)
    if tokenizer is not None and checkup.training is not None:
        checkup.findings += _laterality(data, checkup.training, tokenizer)
    _leaks(facts, checkup)
    if options.measure and complete:
        checkup.findings += measured_findings(config, options.observer)


def _disk(config: Config, options: Options) -> Iterator[Finding]:
    if config.data.vocab_size is not None:
        yield from disk_findings(config, options.directory, options.retention)


def _tokenizer(config: Config, checkup: Checkup) -> Tokenizer | None:
    if find_task(config.model.name).labels != "captions":
        return None
    try:
        return Tokenizer.from_file(config.data.tokenizer_model)
    except UserError as error:
        advice = "make it with `virtex tokenizer`, or set DATA.TOKENIZER_MODEL"
        checkup.findings.append(Finding("no-vocabulary", "problem", str(error), advice))
        return None


def _resolved(config: Config, tokenizer: Tokenizer, checkup: Checkup) -> Config:
    """The configuration with the sizes and ids of the vocabulary, even where it has others."""
    source = str(config.data.tokenizer_model)
    try:
        return resolve_sizes(config, tokenizer, source)
    except UserError as error:
        checkup.findings.append(Finding("vocabulary-settings", "problem", str(error)))
    names = ("vocab_size", "unk_index", "sos_index", "eos_index", "mask_index")
    changes = {name: getattr(tokenizer, name) for name in names}
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def _open(
    config: Config, options: Options, checkup: Checkup, *, complete: bool
) -> dict[str, ReportedRecords]:
    """The splits that can be opened without what cannot be used, by name."""
    labels = find_task(config.model.name).labels
    if labels == "classes":
        raise UserError(
            "MODEL.NAME is image_classification, and `virtex doctor` checks data with captions or"
            " categories; `virtex evaluate` checks labelled images"
        )
    data = config.data.model_copy(update={"on_bad_image": "skip"})
    open_all = partial(open_splits, labels=labels, observer=options.observer)
    try:
        opened = open_all(data)
    except UserError as error:
        checkup.findings.append(Finding("cannot-open", "problem", str(error)))
        return _open_apart(data, options)
    _left_out(config.data, open_all, checkup)
    splits = {"train": opened.training, "val": opened.validation}
    for name, records in splits.items():
        text = f"{_SPLITS[name]} images"
        checkup.findings.append(Finding("images", "note", text, count=len(records)))
        lines = (f"{_SPLITS[name]}: {line}" for line in records.report)
        checkup.findings += [Finding("reading", "note", line) for line in lines]
        checkup.findings += _missing(config.data, _SPLITS[name], records)
    if complete:
        checkup.findings += _length(config, len(opened.training))
    return splits


def _length(config: Config, images: int) -> Iterator[Finding]:
    """Whether the training images fill a batch, and the run is as long as its schedule."""
    try:
        check_batch_size(config.optim.batch_size, images)
        resolve_length(config, images)
    except UserError as error:
        yield Finding("length", "problem", str(error))


def _open_apart(data: Data, options: Options) -> dict[str, ReportedRecords]:
    """Those splits that can be opened alone, though not together."""
    if data.sources:
        return {}
    opened = {}
    for split in _SPLITS:
        for changes in ({}, {"val_share": None, "group_column": None}):
            try:
                alone = data.model_copy(update=changes)
                opened[split] = caption_records(alone, split, options.observer)
                break
            except UserError:  # already reported
                continue
    return opened


def _left_out(data: Data, open_all: Callable[[Data], OpenedSplits], checkup: Checkup) -> None:
    """A finding if items cannot be used, for which `DATA.ON_BAD_IMAGE` error refuses the data."""
    bad = _bad_images(data)
    try:
        open_all(data.model_copy(update={"on_bad_image": "error"}))
    except UserError as error:
        finding = Finding(
            "unusable-items",
            bad.severity,
            str(error),
            f"correct them{bad.otherwise}",
        )
        checkup.findings.append(finding)


def _bad_images(data: Data) -> BadImages:
    return BadImages(skipped=data.on_bad_image == "skip")


def _missing(data: Data, name: str, records: Records) -> Iterator[Finding]:
    missing = records.missing(range(len(records)))
    if missing:
        yield Finding.of_items(
            "missing-images",
            _bad_images(data).severity,
            f"{name} images whose files are missing or empty",
            missing,
            total=len(records),
            advice=f"check the paths{_bad_images(data).otherwise}",
        )


def _missing_positions(records: Records) -> set[int]:
    """The positions of the images whose files are missing or empty."""
    if not records.missing(range(len(records))):
        return set()
    return {position for position in range(len(records)) if records.missing([position])}


def _pixels(data: Data, training: Records | None, options: Options, checkup: Checkup) -> Data:
    """The settings with the range that a run would choose, and findings on it."""
    if training is None or not options.images:
        return data
    limits = image_limits(data)
    try:
        sample = sample_pixels(sampled_images(training), pixel_settings(data), limits)
        if data.pixel_range == "auto":
            data = data.model_copy(update=chosen_range(data, sample))
    except BadImage:
        return data  # every image is read below
    except UserError as error:
        checkup.findings.append(Finding("pixel-values", "problem", str(error)))
        return data
    pixels = pixel_settings(data)
    described = describe_ranges(sample, pixels)
    lines = [*([] if described is None else [described]), *sample.note_lines]
    checkup.findings += [Finding("pixel-values", "note", line) for line in lines]
    problem = range_problem(sample, pixels)
    if problem is not None:
        checkup.findings.append(Finding("pixel-range", "warning", problem))
    return data


def _captions(name: str, records: Records, checkup: Checkup) -> list[Caption]:
    positions = evenly_spaced(len(records), MOST_CAPTIONED)
    captions, damaged = read_captions(records, positions)
    if len(positions) < len(records):
        text = f"{name}: the captions of {len(positions):,} of {len(records):,} images are checked"
        checkup.findings.append(Finding("sampled", "note", text))
    if damaged:
        text, advice = f"{name} samples that are damaged", "copy the shards again"
        checkup.findings.append(
            Finding.of_items("damaged-samples", "problem", text, damaged, advice=advice)
        )
    return captions


def _images(
    data: Data,
    crop: int | None,
    records: Records,
    split: str,
    options: Options,
    checkup: Checkup,
) -> list[ImageFacts]:
    name = _SPLITS[split]
    if not options.images:
        return []
    positions = evenly_spaced(len(records), options.images)
    if len(positions) < len(records):
        text = f"{name}: {len(positions):,} of {len(records):,} images are read, evenly spaced"
        advice = "--images sets how many; duplicates of images that are not read are not found"
        checkup.findings.append(Finding("sampled", "note", text, advice))
    try:
        with options.reading(f"{name} images", len(positions)) as advance:
            facts = list(
                image_facts(
                    records,
                    positions,
                    image_limits(data),
                    pixel_settings(data),
                    workers=options.workers,
                    advance=advance,
                )
            )
    except UserError as error:
        checkup.findings.append(Finding("cannot-read", "problem", f"{name}: {error}"))
        return []
    known = {str(path) for path in records.missing(positions)}  # a finding of their own
    checkup.findings += image_findings(
        name, [fact for fact in facts if fact.name not in known], crop, _bad_images(data)
    )
    if split == "train":
        checkup.unfit |= {fact.position for fact in facts if fact.problem is not None}
        for group in by_digest(facts).values():
            checkup.unfit |= {fact.position for fact in group[1:]}
    return facts


def _laterality(data: Data, training: Records, tokenizer: Tokenizer) -> Iterator[Finding]:
    found = check_captions(data, training, tokenizer, remote=False)
    for line in found.warnings:
        yield Finding("caption-settings", "warning", line)
    for line in found.report:
        yield Finding("caption-settings", "note", line)


def _leaks(facts: Mapping[str, Sequence[ImageFacts]], checkup: Checkup) -> None:
    pairs = leaks(facts.get("train", []), facts.get("val", []))
    checkup.findings += leak_findings(pairs)
    checkup.unfit |= {training.position for training, _, _ in pairs}
