"""The validation of a run: losses, accuracy or mAP, and samples with their diversity."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing

from virtex.build.data import validation_batches, validation_samples
from virtex.build.model import sample_predictor
from virtex.config.schema import Config
from virtex.evaluation.class_scores import ClassScores, class_statistics
from virtex.plots.contact_sheet import contact_sheet
from virtex.tasks import find_task
from virtex.tasks.base import Batch, Sample
from virtex.training.loop import validate
from virtex.training.progress import losses_text
from virtex.training.setup import Run

SAMPLES = 8
"""The number of validation images on the page of sample predictions, and predicted at once."""
DIVERSITY_SAMPLES = 64
"""The number of validation images whose captions are compared with each other."""


_LOGGED = {
    "images": f"{SAMPLES} images with their given and predicted texts (text or none logs less)",
    "text": f"the given and predicted texts of {SAMPLES} images",
    "none": "nothing but figures",
}


def samples_logged(config: Config) -> str:
    """What a validation leaves of the data in logs and event files, for the log."""
    kind = config.log_samples
    return f"logged of the validation data: {_LOGGED[kind]} (LOG_SAMPLES {kind})"


def validate_and_log(run: Run, iteration: int) -> bool:
    """Validate the weights after `iteration`; False if a request to stop came first."""
    phase = f"validation after iteration {iteration}"
    run.watchdog.report(phase)
    task = find_task(run.options.config.model.name)
    scores = ClassScores(task, run.state.objective)
    with scores.recording():
        means = _mean_losses(run, phase, scores.watch)
    if means is None:
        return False
    if not means:
        run.logger.warning(f"{phase}: no item to predict, so no loss")
        return True
    total = run.state.objective.total(means)
    scalars = {"val/loss": total} | {f"val/{name}": mean for name, mean in means.items()}
    figures: dict[str, float] = {}
    if task.class_head is not None:
        found = class_statistics(run.world.gather(scores.answers), run.data.vocabulary)
        figures = {} if found is None else found.values()
    scalars |= {f"val/{name}": value for name, value in figures.items()}
    run.logger.log_scalars(iteration, scalars)
    percents = "".join(f"  {name} {value:.2f} %" for name, value in figures.items())
    run.logger.info(f"{phase}: {losses_text(total, means)}{percents}")
    if run.state.average is not None:
        with run.state.average.applied(run.state.objective):
            means = _mean_losses(run, f"{phase}, average of the weights")
        if means is None:
            return False
        _log_average(run, iteration, means)
    if run.world.main:
        _log_samples(run, iteration)
    return True


def _mean_losses(
    run: Run, phase: str, watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter
) -> dict[str, float] | None:
    """The losses of the validation split, by `watch`ed batches; None if a request to stop came."""
    # The statistics that are saved, and so judged, are those of the first process.
    run.world.broadcast(list(run.state.objective.buffers()))
    with closing(_batches(run, phase)) as batches:
        return validate(
            run.state.objective,
            watch(batches),
            precision=run.state.precision,
            sum_over_processes=run.world.sum,
            stopping=lambda: bool(run.request),
        )


def _log_average(run: Run, iteration: int, means: dict[str, float]) -> None:
    total = run.state.objective.total(means)
    scalars = {"val/average/loss": total}
    scalars |= {f"val/average/{name}": mean for name, mean in means.items()}
    run.logger.log_scalars(iteration, scalars)
    run.logger.info(
        f"validation after iteration {iteration}, average of the weights: "
        f"{losses_text(total, means)}"
    )


def _batches(run: Run, phase: str) -> Generator[Batch, None, None]:
    """This process's batches of the validation split; reports `phase` for each."""
    loaded = validation_batches(
        run.options.config, run.data, run.world, workers=run.options.workers
    )
    for batch, bad in loaded:
        run.watchdog.report(phase)
        for error in bad:
            run.logger.warning_once(f"skipped {error}")
        if batch:
            yield batch


def _log_samples(run: Run, iteration: int) -> None:
    """Log the page of sample predictions and, of a task that captions, how many are distinct."""
    predict = sample_predictor(run.options.config, run.state.objective, run.data.vocabulary)
    captions = find_task(run.options.config.model.name).captioning_head is not None
    found: list[str] = []
    for first in range(0, DIVERSITY_SAMPLES if captions else SAMPLES, SAMPLES):
        batch = validation_samples(run.data, range(first, first + SAMPLES))
        if not batch:
            continue
        samples = predict({name: tensor.to(run.world.device) for name, tensor in batch.items()})
        found += [sample.prediction for sample in samples]
        if first == 0 and run.options.config.log_samples != "none":
            _log_page(run, iteration, batch, samples)
    if captions and found:
        _log_diversity(run, iteration, found)


def _log_page(run: Run, iteration: int, batch: Batch, samples: Sequence[Sample]) -> None:
    rows = "\n".join(f"| {sample.prediction} | {sample.target} |" for sample in samples)
    text = f"| predicted | given |\n|---|---|\n{rows}"
    run.logger.log_text(iteration, "val/samples", text)
    if run.options.config.log_samples == "images":
        images = [image.permute(1, 2, 0).numpy() for image in batch["image"]]
        sheet = contact_sheet(images, [sample.prediction for sample in samples])
        run.logger.log_image(iteration, "val/samples", sheet)


def _log_diversity(run: Run, iteration: int, captions: Sequence[str]) -> None:
    """Log how many captions are distinct; warn if more than half of the images get the same."""
    counts = Counter(captions)
    ((frequent, number),) = counts.most_common(1)
    run.logger.log_scalars(
        iteration,
        {
            "samples/distinct_captions": 100 * len(counts) / len(captions),
            "samples/most_frequent_caption": 100 * number / len(captions),
        },
    )
    line = (
        f"validation after iteration {iteration}: {len(counts)} of {len(captions)} captions are "
        "distinct"
    )
    if 2 * number > len(captions) > 1:
        shown = "" if run.options.config.log_samples == "none" else f", {frequent!r}"
        run.logger.warning(
            f"{line}; {number} images get the same{shown}: the model hardly tells these images "
            "apart"
        )
    else:
        run.logger.info(line)
