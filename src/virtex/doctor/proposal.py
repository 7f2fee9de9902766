"""The settings of a first run on a data set, each with the reason, from what the data are like."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from virtex.build.observer import Observer
from virtex.build.resolve import iterations_of, resolve_sizes
from virtex.build.sources import OpenedSplits, open_splits
from virtex.config.loading import file_layers, load_layers
from virtex.config.schema import Config
from virtex.data.sources.drawn_split import EmptySideError
from virtex.doctor.caption_survey import (
    CaptionSurvey,
    choose_normalization,
    length_choices,
    mirror_choices,
    survey_captions,
    train_vocabulary,
)
from virtex.doctor.detected import Choice, DetectedData, counted, nested
from virtex.doctor.image_survey import ImageSurvey, survey_images
from virtex.doctor.measure import MemoryFit
from virtex.doctor.scale import (
    Machine,
    choose_batch,
    choose_crop,
    choose_epochs,
    choose_network,
    choose_warmup,
    pretrained_advice,
    scaled_rates,
)
from virtex.doctor.validation import NO_SPLIT, share_choice
from virtex.errors import UserError, first_few

PRESET = "recipes/small"
Measure = Callable[[Config], MemoryFit | None]
"""Measures the training steps of a run; None if not even the smallest batch fits."""

_MOST_SEED = 20
_FEW, _MANY = 1000, 200_000  # images
_READING = Observer(touched=False)
_CROP = "random_resized_crop::{'scale': (0.5, 1.0)}"
_JITTER = "color_jitter::{'brightness': 0.2, 'contrast': 0.2, 'saturation': 0.2, 'hue': 0.02}"
_JITTER_OF_BANDS = "color_jitter::{'brightness': 0.2, 'contrast': 0.2, 'saturation': 0, 'hue': 0}"


@dataclass(frozen=True)
class Proposal:
    """The choices that make a run, in the order in which they are written, and the vocabulary.

    `notes` are whole sentences for the user. `training`, `validation` and `iterations` are numbers
    of images and of iterations, which take about so many `seconds`, if that was measured.
    """

    choices: tuple[Choice, ...]
    notes: tuple[str, ...]
    vocabulary: bytes
    training: int
    validation: int
    iterations: int
    seconds: float | None


def propose(
    detected: DetectedData,
    vocabulary: Path,
    machine: Machine,
    measure: Measure | None = None,
) -> Proposal:
    """Look at images and captions, and choose the settings of a run; nothing is written.

    `vocabulary` is the file that will hold the vocabulary. Raises UserError if the data cannot be
    read, or the smallest batch does not fit the memory.
    """
    detected, splits, problems = _open(detected)
    images = survey_images(detected.data(), (splits.training, splits.validation))
    captions = survey_captions(splits.training, medical_images=images.has_dicom)
    normalization, reason = choose_normalization(captions.captions)
    tokenizer, size = train_vocabulary(captions.captions, normalization)
    problems += _problems(images, captions)
    count = len(splits.training)
    choices = [
        *detected.choices,
        _on_bad_image(problems, images),
        Choice("DATA.TOKENIZER_MODEL", str(vocabulary), size),
        Choice("DATA.TEXT_NORMALIZATION", normalization, reason),
        *length_choices(captions.captions, tokenizer),
        *_image_choices(images, captions, machine),
        *_model_choices(count, machine),
    ]
    config = resolve_sizes(_config(choices), tokenizer, str(vocabulary))
    fit = None if measure is None else _measured(config, measure)
    batch, reason = choose_batch(count, machine, None if fit is None else fit.largest)
    optimization, iterations = _optimization(count, batch)
    choices += [Choice("OPTIM.BATCH_SIZE", batch, reason), *optimization]
    return Proposal(
        choices=tuple(choices),
        notes=(*problems, *detected.notes, *_notes(images, captions, count)),
        vocabulary=tokenizer.model_bytes,
        training=count,
        validation=len(splits.validation),
        iterations=iterations,
        seconds=None if fit is None else iterations * _step_seconds(fit, batch, machine),
    )


def _optimization(images: int, batch: int) -> tuple[list[Choice], int]:
    """Rates and length of the run, and the number of its iterations."""
    rates, rates_reason = scaled_rates(batch)
    epochs, epochs_reason = choose_epochs(images)
    iterations = iterations_of(epochs, images, batch)
    warmup, warmup_reason = choose_warmup(iterations)
    choices = [
        *(Choice(key, rate, rates_reason) for key, rate in rates.items()),
        Choice("OPTIM.NUM_EPOCHS", epochs, epochs_reason),
        Choice("OPTIM.WARMUP_STEPS", warmup, warmup_reason),
    ]
    return choices, iterations


def _step_seconds(fit: MemoryFit, batch: int, machine: Machine) -> float:
    """The time of a step at the greatest speed that was measured."""
    fastest = max(cost.images_per_second for cost in fit.costs)
    return batch / fastest / max(machine.gpus, 1)


def _measured(config: Config, measure: Measure) -> MemoryFit:
    fit = measure(config)
    if fit is None:
        raise UserError(
            f"not even a few images of {config.data.image_crop_size} pixels fit the memory for"
            f" training {config.model.visual.network}; free some, or use another machine"
        )
    return fit


def _open(detected: DetectedData) -> tuple[DetectedData, OpenedSplits, list[str]]:
    """The data with both splits, and a line on what is left out of them."""
    try:
        return *_drawn(detected), []
    except EmptySideError:
        raise
    except UserError as error:
        skipping = Choice("DATA.ON_BAD_IMAGE", "skip", "")
        try:
            found, splits = _drawn(replace(detected, choices=(*detected.choices, skipping)))
        except UserError:
            raise error from None
        left_out = str(error).partition(". Correct")[0]
        return replace(found, choices=found.choices[:-1]), splits, [f"Not used: {left_out}."]


def _drawn(detected: DetectedData, seed: int = 0) -> tuple[DetectedData, OpenedSplits]:
    """Open the splits, with the first seed that draws an image for each if they are drawn.

    A share of images whose number was not known becomes one that suits this number.
    """
    found = detected
    if seed:
        reason = "with the default, 0, one side of so few images would be empty"
        choice = Choice("DATA.VAL_SEED", seed, reason)
        found = replace(detected, choices=(*detected.choices, choice))
    try:
        splits = open_splits(found.data(), "captions", _READING)
    except EmptySideError:
        if seed == _MOST_SEED:
            raise
        return _drawn(detected, seed + 1)
    if detected.reasons.get("DATA.VAL_SHARE") != NO_SPLIT:
        return found, splits
    share = share_choice(len(splits.training) + len(splits.validation))
    choices = (share if each.key == share.key else each for each in detected.choices)
    return _drawn(replace(detected, choices=tuple(choices)))


def _config(choices: list[Choice]) -> Config:
    """The preset with the choices; raises UserError."""
    values = nested({each.key: each.value for each in choices})
    layers = [*file_layers(Path(PRESET)), ("of the proposal", values)]
    return load_layers(Config, layers, "the proposal")


def _problems(images: ImageSurvey, captions: CaptionSurvey) -> list[str]:
    problems = []
    if images.missing:
        names = first_few([path.name for path in images.missing], 3)
        problems.append(
            f"Missing or empty: {counted(len(images.missing), 'image file')} ({names})."
        )
    if images.unreadable:
        problems.append(
            f"Of {counted(images.checked, 'image')} that were looked at, {len(images.unreadable)}"
            f" cannot be read: {'; '.join(images.unreadable[:3])}"
            f"{'; …' if len(images.unreadable) > 3 else '.'}"
        )
    if captions.unreadable:
        problems.append(
            f"The captions of {counted(len(captions.unreadable), 'image')} cannot be read:"
            f" {captions.unreadable[0]}."
        )
    return problems


def _on_bad_image(problems: list[str], images: ImageSurvey) -> Choice:
    if problems:
        return Choice("DATA.ON_BAD_IMAGE", "skip", " ".join(problems))
    reason = f"all of {counted(images.checked, 'image')} that were looked at can be read"
    return Choice("DATA.ON_BAD_IMAGE", "error", reason)


def _image_choices(
    images: ImageSurvey, captions: CaptionSurvey, machine: Machine
) -> Iterator[Choice]:
    crop, reason = choose_crop(images.short_side, machine)
    yield Choice("DATA.IMAGE_CROP_SIZE", crop, reason)
    transforms = [_CROP, _JITTER, "normalize"]
    if images.bands is not None:
        bands = list(range(1, images.bands + 1))
        yield Choice("DATA.BANDS", bands, "all bands; name those of red, green and blue first")
        if images.bands != 3:
            transforms = [_CROP, _JITTER_OF_BANDS, "normalize"]
            if captions.mirrors:
                reason = "as in recipes/small, with a jitter that does not need colours"
                transforms.insert(1, "horizontal_flip")
                yield Choice("DATA.IMAGE_TRANSFORM_TRAIN", transforms, reason)
    yield from mirror_choices(captions, transforms)


def _model_choices(images: int, machine: Machine) -> Iterator[Choice]:
    network, reason = choose_network(images, machine)
    yield Choice("MODEL.VISUAL.NAME", f"torchvision::{network}", reason)
    yield Choice("MODEL.VISUAL.PRETRAINED", False, pretrained_advice(images))


def _notes(images: ImageSurvey, captions: CaptionSurvey, count: int) -> Iterator[str]:
    mirrored = "" if captions.mirrors else "; images are not mirrored in training"
    yield f"The captions are in {captions.language}{mirrored}."
    if images.values is not None:
        yield f"{images.values[0].upper()}{images.values[1:]}."
    if count > _MANY:
        yield (
            f"{PRESET} is for up to about 100,000 images; for {count:,}, compare it with the"
            " published configuration, base."
        )
    if count < _FEW:
        yield (
            f"{counted(count, 'image')} are few: expect captions that repeat the training set, and"
            " begin with trained weights if you may (MODEL.VISUAL.PRETRAINED)."
        )
