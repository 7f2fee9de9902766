"""The judgement of a fine-tuned model on its validation split."""

from pathlib import Path

import torch

from virtex.build.data import open_data, validation_batches
from virtex.build.images import pixel_settings
from virtex.checkpoints.file import checkpoints
from virtex.distributed.world import World
from virtex.errors import RunError
from virtex.evaluation.class_scores import ClassScores, class_statistics
from virtex.evaluation.finetuning import Finetuning
from virtex.evaluation.results import Result, to_results
from virtex.inference.pretrained import load
from virtex.tasks import find_task
from virtex.training.loop import validate
from virtex.training.precision import choose_precision


def judge(directory: Path, of: Finetuning, *, device: torch.device, workers: int) -> list[Result]:
    """The figures of the newest checkpoint of a run, computed as in the run's own validation.

    Raises `UserError` for images that cannot be read, unless they are skipped.
    """
    config = of.config
    saved = checkpoints(directory)
    if not saved:
        raise RunError(f"{directory} holds no checkpoint to judge")
    model = load(saved[-1]).to(device)
    data = open_data(config).with_pixels(pixel_settings(model.config.data))
    precision = choose_precision(config.amp, device)
    world = World(rank=0, size=1, device=device)
    scores = ClassScores(find_task(config.model.name), model.objective)
    loaded = validation_batches(config, data, world, workers=workers)
    with scores.recording():
        validate(
            model.objective,
            scores.watch(batch for batch, _ in loaded if batch),
            precision=precision,
            sum_over_processes=world.sum,
        )
    statistics = class_statistics([scores.answers], data.vocabulary)
    if statistics is None:
        raise RunError(f"{config.data.root}: no test image can be judged")
    optim = config.optim
    settings: dict[str, object] = {
        "iterations": model.iteration,
        "batch_size": optim.batch_size,
        "frozen": config.model.visual.frozen,
        "backbone_learning_rate": None if config.model.visual.frozen else optim.cnn_lr,
        "learning_rate": optim.lr,
        "decay": optim.lr_decay_name,
        "warmup": optim.warmup_steps,
        "weight_decay": optim.weight_decay,
        "optimizer": optim.optimizer_name,
        "transforms": list(config.data.image_transform_train),
        "test_transforms": list(config.data.image_transform_val),
        "image_size": config.data.image_crop_size,
        "precision": precision.name,
        "train_images": len(data.training),
        "test_images": statistics.images,
        "classes": data.vocabulary.vocab_size,
    }
    return to_results(
        statistics.figures(settings, seed=config.random_seed),
        "finetune",
        of.start,
        data=of.data_sha256,
        root=Path(config.data.root),
        seed=config.random_seed,
        settings={},
    )
