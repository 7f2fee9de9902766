"""The validation of a run: its losses, and a page of sample predictions."""

from collections.abc import Generator
from contextlib import closing

from virtex.build.data import validation_batches, validation_samples
from virtex.build.model import sample_predictor
from virtex.plots.contact_sheet import contact_sheet
from virtex.tasks.base import Batch
from virtex.training.loop import validate
from virtex.training.progress import losses_text
from virtex.training.setup import Run

SAMPLES = 8
"""The number of validation images on the page of sample predictions."""


def validate_and_log(run: Run, iteration: int) -> bool:
    """Validate the weights after `iteration`; False if a request to stop came first."""
    phase = f"validation after iteration {iteration}"
    run.watchdog.report(phase)
    # The statistics that are saved, and so judged, are those of the first process.
    run.world.broadcast(list(run.state.objective.buffers()))
    with closing(_batches(run, phase)) as batches:
        means = validate(
            run.state.objective,
            batches,
            precision=run.state.precision,
            sum_over_processes=run.world.sum,
            stopping=lambda: bool(run.request),
        )
    if means is None:
        return False
    if not means:
        run.logger.warning(f"{phase}: no item to predict, so no loss")
        return True
    total = run.state.objective.total(means)
    scalars = {"val/loss": total} | {f"val/{name}": mean for name, mean in means.items()}
    run.logger.log_scalars(iteration, scalars)
    run.logger.info(f"{phase}: {losses_text(total, means)}")
    if run.world.main:
        _log_samples(run, iteration)
    return True


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
    batch = validation_samples(run.data, SAMPLES)
    if not batch:
        return
    predict = sample_predictor(run.options.config, run.state.objective, run.data.vocabulary)
    samples = predict({name: tensor.to(run.world.device) for name, tensor in batch.items()})
    images = [image.permute(1, 2, 0).numpy() for image in batch["image"]]
    sheet = contact_sheet(images, [sample.prediction for sample in samples])
    rows = "\n".join(f"| {sample.prediction} | {sample.target} |" for sample in samples)
    text = f"| predicted | given |\n|---|---|\n{rows}"
    run.logger.log_images(iteration, "val/samples", sheet, text)
