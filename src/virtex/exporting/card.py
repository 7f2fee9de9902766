"""The model card of an exported backbone. It never holds a caption or an image of the data."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from virtex.checkpoints.exported import Manifest
from virtex.config.schema import Config
from virtex.exporting import fingerprint
from virtex.files import write_whole

CARD = "README.md"
_DECIMALS = 2


def write_card(
    directory: Path,
    manifest: Manifest,
    config: Config,
    source: str,
    results: Sequence[Mapping[str, Any]],
) -> None:
    """Write `README.md`, with what the configuration and the evaluations tell."""
    text = "\n".join(_lines(manifest, config, Path(source).name, results))
    write_whole(directory / CARD, f"{text}\n".encode())


def usage(manifest: Manifest) -> list[str]:
    """Lines of Python that load the export from the directory that holds it."""
    name = manifest.network
    match manifest.target:
        case "timm":
            return [
                "import timm, transformers",
                "model = timm.create_model('local-dir:DIR', pretrained=True)",
                "model = transformers.AutoModel.from_pretrained('DIR')",
            ]
        case "torchvision":
            return [
                "import safetensors.torch, torch, torchvision",
                f"model = torchvision.models.{name}(); model.fc = torch.nn.Identity()",
                "model.load_state_dict(safetensors.torch.load_file('DIR/model.safetensors'))",
            ]
        case "onnx":
            return [
                "import onnxruntime",
                "session = onnxruntime.InferenceSession('DIR/model.onnx')",
                "features, grid = session.run(None, {'images': images})",
            ]
        case "detectron2":
            return ["cfg.MODEL.WEIGHTS = 'DIR/model.safetensors'"]


def _lines(
    manifest: Manifest, config: Config, source: str, results: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    data = config.data
    yield from ("---", "license: other", "library_name: " + manifest.target, "---", "")
    yield f"# {manifest.network}, pretrained from captions"
    yield ""
    iteration = "" if manifest.iteration is None else f", iteration {manifest.iteration:,}"
    yield (
        f"The visual backbone of `{source}`{iteration}, trained by virtex with the task"
        f" {config.model.name}. It gives {manifest.feature_size} features an image: the mean of the"
        " last grid."
    )
    yield from ("", "```python", *usage(manifest), "```", "", "## Images", "")
    yield (
        f"The shorter side is resized to {manifest.resize} pixels (bilinear, antialiased), the"
        f" central square of {manifest.image_size} is cut out, and values in [0, 1] are normalised"
        f" by the mean {manifest.mean} and the standard deviation {manifest.std}."
    )
    if manifest.bands != 3:
        yield f"Images have {manifest.bands} bands, {list(data.bands or ())} of the files."
    if manifest.pixel_range is not None:
        yield (
            "**Raw pixels must be scaled first**: the values of images with more than 8 bits were"
            f" mapped so that {manifest.pixel_range} became 0 ... 255 (DATA.PIXEL_RANGE), which"
            " other libraries do not do."
        )
    if manifest.dicom_window is not None:
        yield f"DICOM images were mapped with the window `{manifest.dicom_window}`."
    yield from ("", "## Training", "")
    yield f"- data: format {data.format}; the number of images and their source: not stated"
    yield f"- captions: language not stated, normalization {data.text_normalization}"
    optim = config.optim
    yield (
        f"- recipe: {optim.iterations:,} iterations of {optim.batch_size} images,"
        f" {optim.optimizer_name}, learning rates {optim.cnn_lr:g} (backbone) and {optim.lr:g}"
    )
    initial = config.model.visual.pretrained
    yield f"- initial weights of the backbone: {'random' if initial is False else initial}"
    yield from ("", "## Evaluation", "")
    if results:
        yield from ("| protocol | metric | value |", "|---|---|---:|")
        for one in results:
            yield f"| {one['protocol']} | {one['metric']} | {one['value']:.{_DECIMALS}f} |"
    else:
        yield "None is recorded beside the checkpoint; `virtex evaluate` records them."
    yield from ("", "## Limits", "")
    yield (
        "Licence: not stated; it depends on the training data. The features reflect what these data"
        " and their captions show and leave out. They have not been tested for decisions about"
        " people, for diagnosis, or for safety; do not use them there without a test of your own."
    )
    if manifest.target == "detectron2":
        yield ""
        yield "Not loaded by detectron2: names and shapes were compared with its ResNet definition."
    yield from ("", "## Check", "")
    yield (
        f"`virtex verify DIR` compares two fingerprints with `{fingerprint.FILE}`: features of"
        f" {fingerprint.FORMULA} (relative difference at most {fingerprint.TOLERANCE:g}), and of a"
        f" drawn image through the library's own preprocessing (cosine at least"
        f" {fingerprint.LEAST_COSINE})."
    )
