"""What a run writes to its directory: resolved settings, the subset's manifest, checkpoints."""

import torch

from virtex._version import __version__
from virtex.checkpoints.file import Retention, checkpoint_path, remove_old, remove_partial_files
from virtex.checkpoints.run_directory import CONFIG
from virtex.checkpoints.state import vocabulary_state
from virtex.config import loading
from virtex.data import subset
from virtex.errors import RunError, first_few
from virtex.files import whole_file
from virtex.training.setup import Run


def prepare_directory(run: Run, *, save_weights: bool) -> None:
    """Write what describes the run before it starts; with `save_weights` also checkpoint 0.

    Then a run that ends before its first checkpoint resumes from these weights.
    """
    directory = run.options.directory
    if run.world.main:
        run.watchdog.report("taking fingerprints of the data")
        _ = run.data.contents  # kept, for all checkpoints
        remove_partial_files(directory)
        with whole_file(directory / CONFIG) as file:
            file.write(loading.dump(run.options.config).encode())
        subset.write_or_remove(directory / subset.SUBSET, run.data.subset)
        if save_weights:
            save(run, 0, validated=True)
            run.saver.finish()
            run.saver.finished()  # not logged
    run.world.wait()


def save(run: Run, iteration: int, *, validated: bool) -> None:
    """Copy the state after `iteration` and start to write it, on the main process.

    Raises `RunError` if weights are not finite.
    """
    if not run.world.main:
        return
    run.watchdog.report(f"iteration {iteration}, copying what is saved")
    weights = run.state.objective.state_dict()
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise RunError(
            f"iteration {iteration}: weights are not finite ({first_few(broken, 3)}), so were "
            "not saved over good ones; lower OPTIM.CNN_LR and OPTIM.LR, and continue with "
            "--resume-from latest"
        )
    average = run.state.average
    state = {
        "model": weights,
        "optimizer": run.state.optimizer.state_dict(),
        "scaler": run.state.scaler.state_dict(),
        **({} if average is None else {"average": average.state_dict()}),
        "iteration": iteration,
        "validated": validated,
        "progress": run.seen.to_plain(iteration),
        # A run that keeps all does not lose them when it resumes without saying so again.
        "untouched": iteration if run.retention.recent is None else run.retention.untouched,
        "config": run.options.config.model_dump(mode="json", by_alias=True),
        **vocabulary_state(run.data.vocabulary),
        "data": run.data.contents.to_plain(),
        # torch's version is of a class of its own, which a reader of plain values refuses.
        "versions": {"virtex": __version__, "torch": str(torch.__version__)},
    }
    run.saver.save(checkpoint_path(run.options.directory, iteration), state)


def log_saved(run: Run) -> None:
    """Log the checkpoints written since the last call; keep the best, remove what is not kept."""
    for path in run.saver.finished():
        run.logger.info(f"saved {path}")
        if run.evaluation.best is not None and run.evaluation.best.saved(path):
            run.logger.info(f"{run.evaluation.best.path} holds the same")
        remove_old(run.options.directory, run.retention)


def describe(retention: Retention) -> str:
    """Which checkpoints are kept, for the log."""
    if retention.recent is None:
        return "all are kept (--keep-recent 0)"
    if retention.milestone is None:
        return f"the newest {retention.recent} are kept, others are removed (--keep-recent)"
    earlier = f" and all up to iteration {retention.untouched}" if retention.untouched > 0 else ""
    return (
        f"the newest {retention.recent} are kept, one every {retention.milestone:,} iterations"
        f"{earlier}; others are removed (--keep-recent N keeps only the N newest, 0 all)"
    )
