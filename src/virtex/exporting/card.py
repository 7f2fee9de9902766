"""The model card of an exported backbone. It never holds a caption or an image of the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.checkpoints.exported import Manifest
from virtex.config.schema import Config
from virtex.evaluation.results import Result
from virtex.exporting import fingerprint

CARD = "README.md"


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
        case "virtex":
            return [
                "import virtex",
                "model = virtex.load('DIR')",
                "model.features('a.jpg'); model.caption(['a.jpg'])",
            ]
        case "detectron2":
            return ["cfg.MODEL.WEIGHTS = 'DIR/model.safetensors'"]


@dataclass(frozen=True)
class Card:
    """What an export, the configuration of its run and its evaluations tell."""

    manifest: Manifest
    config: Config
    source: str
    contents: Mapping[str, Any] | None
    results: Sequence[Result]

    def text(self) -> str:
        """The card in Markdown."""
        parts = [
            *self._introduction(),
            *self._images(),
            *self._training(),
            *self._evaluation(),
            *self._limits(),
        ]
        return "\n".join([*parts, ""])

    def _introduction(self) -> Iterator[str]:
        manifest = self.manifest
        yield from ("---", "license: other", f"library_name: {manifest.target}", "---", "")
        yield f"# {manifest.network}, pretrained from captions"
        iteration = "" if manifest.iteration is None else f", iteration {manifest.iteration:,}"
        yield ""
        yield (
            f"The visual backbone of `{Path(self.source).name}`{iteration}, trained by virtex with"
            f" the task {self.config.model.name}. It gives {manifest.feature_size} features an"
            " image, the mean of the last grid. In Python, with DIR the directory of this file:"
        )
        yield from ("", "```python", *usage(manifest), "```", "")

    def _images(self) -> Iterator[str]:
        manifest = self.manifest
        yield from ("## Images", "")
        yield (
            f"The shorter side is resized to {manifest.resize} pixels (bilinear, antialiased), the"
            f" central square of {manifest.image_size} is cut out, and values in [0, 1] are"
            f" normalised by the mean {manifest.mean} and the standard deviation {manifest.std}."
        )
        if manifest.bands != 3 or manifest.band_numbers:
            yield f"Images have the bands {manifest.band_numbers} of their files."
        if manifest.pixel_range is not None:
            yield (
                "**Raw pixels must be scaled first**: the values of images with more than 8 bits"
                f" were mapped so that {manifest.pixel_range} became 0 ... 255 (DATA.PIXEL_RANGE),"
                " which other libraries do not do."
            )
        if manifest.dicom_window != "file":
            yield f"DICOM images were mapped with the window {manifest.dicom_window}."
        yield ""

    def _training(self) -> Iterator[str]:
        data, optim = self.config.data, self.config.optim
        initial = self.config.model.visual.pretrained
        yield from ("## Training", "")
        yield f"- data: {self._amount()}; source and licence of the data: not stated"
        yield f"- captions: language not stated; normalization {data.text_normalization}"
        if optim.num_iterations is not None and self.manifest.iteration is not None:
            yield (
                f"- recipe: {optim.num_iterations:,} iterations of {optim.batch_size} images,"
                f" {optim.optimizer_name}, learning rates {optim.cnn_lr:g} (backbone) and"
                f" {optim.lr:g}"
            )
        given = "random" if initial is False else "ImageNet's" if initial is True else "given"
        yield f"- initial weights of the backbone: {given}"
        yield ""

    def _amount(self) -> str:
        training = (self.contents or {}).get("training")
        if not isinstance(training, Mapping):
            return "number of images not stated"
        captions = training.get("captions")
        counted = "" if captions is None else f" with {captions:,} captions"
        return f"{training['images']:,} training images{counted}"

    def _evaluation(self) -> Iterator[str]:
        yield from ("## Evaluation", "")
        if self.results:
            yield from ("| protocol | metric | value |", "|---|---|---:|")
            for one in self.results:
                yield f"| {one.protocol} | {one.metric} | {one.value:.2f} |"
        else:
            yield "None is recorded beside the checkpoint; `virtex evaluate` records them."
        yield ""

    def _limits(self) -> Iterator[str]:
        yield from ("## Limits", "")
        yield (
            "Licence: not stated; it depends on the training data. The features reflect what these"
            " data and their captions show and leave out. They have not been tested for decisions"
            " about people, for diagnosis, or for safety; do not use them there without a test of"
            " your own."
        )
        if self.manifest.target == "detectron2":
            yield ""
            yield (
                "Not loaded by detectron2: names and shapes were compared with its definition of"
                " ResNet."
            )
        yield from ("", "## Check", "")
        yield (
            f"`virtex verify DIR` compares two fingerprints with `{fingerprint.FILE}`: the features"
            f" of {fingerprint.FORMULA} (relative difference at most {fingerprint.TOLERANCE:g}),"
            " and of a drawn image through the library's own preprocessing (cosine at least"
            f" {fingerprint.LEAST_COSINE})."
        )
