"""Every export is loaded back by the library that it is for, and gives the same features."""

import json
import shutil

import pytest
import torch

import virtex
from virtex import cli
from virtex.checkpoints.exported import MANIFEST, WEIGHTS, load_tensors, save_tensors
from virtex.errors import UserError
from virtex.evaluation.backbones import module_hash, open_backbones
from virtex.exporting.backbone import ExportedBackbone, export_backbone
from virtex.exporting.verification import verify

SIZE = 64


def backbone(network: str, size: int = SIZE, **data: object) -> ExportedBackbone:
    """A backbone with random weights, and batch-norm statistics that are not the initial ones."""
    (opened,) = open_backbones(
        ["random"], network_name=f"torchvision::{network}", image_size=size, pixels=data
    )
    generator = torch.Generator().manual_seed(1)
    for name, value in opened.module.cnn.state_dict().items():
        if name.endswith(("running_mean", "bias", "layer_scale")):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return ExportedBackbone(opened.module, opened.config, "runs/mine/checkpoint_20.pth", 20)


@pytest.mark.parametrize(
    ("target", "network", "libraries"),
    [
        ("timm", "resnet18", ["timm", "transformers"]),
        ("timm", "convnext_tiny", ["timm", "transformers"]),
        pytest.param("timm", "vit_b_32", ["timm", "transformers"], marks=pytest.mark.slow),
        ("torchvision", "resnet18", ["torchvision"]),
        ("torchvision", "regnet_y_400mf", ["torchvision"]),
        ("onnx", "resnet18", ["onnxruntime"]),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the libraries, on their own future
def test_an_export_has_the_same_features_in_its_library(tmp_path, target, network, libraries):
    directory = tmp_path / "export"
    export_backbone(target, backbone(network), directory)
    found = verify(directory)
    assert [one.library.split()[0] for one in found] == libraries
    for one in found:
        assert one.problem is None
        assert one.difference is not None
        assert one.difference <= 1e-4
        assert one.cosine is not None
        assert one.cosine >= 0.999


@pytest.mark.filterwarnings("ignore")
def test_other_weights_are_found(tmp_path):
    directory = tmp_path / "export"
    export_backbone("timm", backbone("resnet18"), directory)
    tensors = load_tensors(directory / WEIGHTS)
    other = {
        name: value + 0.01 if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    save_tensors(directory / WEIGHTS, other, {"format": "pt"})
    problems = [one.problem for one in verify(directory)]
    assert all(problem is not None and "other weights" in problem for problem in problems)
    del other["conv1.weight"]
    save_tensors(directory / WEIGHTS, other, {"format": "pt"})
    (found,) = verify(directory)
    assert "missing keys (1): conv1.weight" in str(found.problem)
    assert cli.main(["verify", str(directory)]) == 1


def detectron2_resnet(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of detectron2's ResNet of bottlenecks, from its definition.

    A stem with `conv1` (`Conv2d` with `norm`), then `res2` to `res5`: each block has `conv1` to
    `conv3`, and the first one `shortcut`.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, out: int, into: int, side: int) -> None:
        shapes[f"{name}.weight"] = (out, into, side, side)
        for norm in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.norm.{norm}"] = (out,)

    convolution("stem.conv1", 64, 3, 7)
    into = 64
    for stage, count in enumerate(blocks):
        width, out = 64 * 2**stage, 256 * 2**stage
        for block in range(count):
            prefix = f"res{stage + 2}.{block}"
            if block == 0:
                convolution(f"{prefix}.shortcut", out, into, 1)
            convolution(f"{prefix}.conv1", width, into, 1)
            convolution(f"{prefix}.conv2", width, width, 3)
            convolution(f"{prefix}.conv3", out, width, 1)
            into = out
    return shapes


def test_detectron2_gets_its_own_names_and_shapes(tmp_path, capsys):
    directory = tmp_path / "export"
    export_backbone("detectron2", backbone("resnet50"), directory)
    stored = {name: tuple(value.shape) for name, value in load_tensors(directory / WEIGHTS).items()}
    assert stored == detectron2_resnet((3, 4, 6, 3))
    assert cli.main(["verify", str(directory)]) == 0
    assert "not loaded" in capsys.readouterr().out
    assert "Not loaded by detectron2" in (directory / "README.md").read_text()


@pytest.mark.parametrize(
    ("target", "network", "message"),
    [
        ("timm", "regnet_y_400mf", "export to torchvision or onnx"),
        ("torchvision", "convnext_tiny", "export to timm or onnx"),
        ("detectron2", "vit_b_32", "the network is vit_b_32"),
    ],
)
def test_what_is_not_offered_is_refused(tmp_path, target, network, message):
    with pytest.raises(Exception, match=message):
        export_backbone(target, backbone(network), tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_the_card_names_what_a_preprocessing_cannot_hold(tmp_path):
    directory = tmp_path / "export"
    export_backbone("torchvision", backbone("resnet18", pixel_range=(0.0, 4095.0)), directory)
    card = (directory / "README.md").read_text()
    assert "Raw pixels must be scaled first" in card
    assert "4095" in card
    assert json.loads((directory / MANIFEST).read_text())["pixel_range"] == [0.0, 4095.0]


def test_the_command_exports_and_refuses_a_directory_in_use(tmp_path, capsys):
    weights = tmp_path / "resnet18.pth"
    torch.save(backbone("resnet18").module.cnn.state_dict(), weights)
    words = ["export", "torchvision", "--network", "torchvision::resnet18"]
    words += ["--checkpoint", str(weights), "--output", str(tmp_path / "export")]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert "largest relative difference" in output
    assert "torchvision.models.resnet18()" in output
    assert cli.main(words) == 2
    shutil.rmtree(tmp_path / "export")
    assert cli.main(["verify", str(tmp_path)]) == 2


def test_an_interrupted_export_is_no_export(tmp_path):
    directory = tmp_path / "export"
    export_backbone("torchvision", backbone("resnet18"), directory)
    (directory / MANIFEST).unlink()
    assert cli.main(["verify", str(directory)]) == 2


@pytest.mark.parametrize(
    ("target", "network"),
    [
        ("timm", "resnet18"),
        ("timm", "convnext_tiny"),
        ("torchvision", "resnet18"),
        ("detectron2", "resnet18"),
    ],
)
def test_an_exported_backbone_is_evaluated_as_its_checkpoint(tmp_path, target, network):
    original = backbone(network, pixel_range=(0.0, 4095.0))
    export_backbone(target, original, tmp_path / "export")
    (opened,) = open_backbones([str(tmp_path / "export")])
    assert opened.sha256 == module_hash(original.module)
    assert opened.image_size == SIZE
    assert opened.iteration == 20
    assert opened.config.data.pixel_range == (0.0, 4095.0)
    assert opened.config.data.transforms_val[1:] == original.config.data.transforms_val[1:]


def test_python_exports_as_the_command(tmp_path):
    weights = tmp_path / "resnet18.pth"
    torch.save(backbone("resnet18").module.cnn.state_dict(), weights)
    (found,) = virtex.export(
        weights, "torchvision", tmp_path / "export", network="torchvision::resnet18"
    )
    assert found.problem is None
    with pytest.raises(UserError, match="expected one of timm"):
        virtex.export(weights, "caffe", tmp_path / "other")  # type: ignore[arg-type]
