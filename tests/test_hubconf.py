"""The entry points of torch.hub, from a copy of the clone, where virtex is not installed."""

import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from tests.small import assert_same, state_of

import virtex
from virtex.build.model import build_objective
from virtex.checkpoints.state import vocabulary_state
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.data.images import read_image
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train

ROOT = Path(__file__).parent.parent
BASE = ROOT / "src" / "virtex" / "configs" / "_base_bicaptioning_R_50_L1_H1024.yaml"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Only the paths that are given are looked into: nothing of an editable installation.
LOAD = """
import sys
import warnings
from pathlib import Path

warnings.simplefilter("error")
clone, packages, blocked = sys.argv[1:4]
sys.path.append(packages)
for name in blocked.split():
    sys.modules[name] = None  # as if it were not there

import torch

def load(entry, **arguments):
    return torch.hub.load(clone, entry, source="local", **arguments)
"""
BACKBONES = ["resnet50", "resnet101", "wide_resnet50_2"]
BEYOND_TORCH = "pydantic yaml sentencepiece cv2 tensorboard simplejpeg"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A directory with what torch.hub needs of this repository."""
    copy = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "hubconf.py", copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def hub(clone, tmp_path):
    """A function that runs lines in a new process, after `load`; gives its output and error."""

    def hub(lines, *, blocked=""):
        packages = str(Path(torch.__file__).parents[1])
        result = subprocess.run(
            [sys.executable, "-S", "-c", LOAD + lines, str(clone), packages, blocked],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "TORCH_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return result.stdout, result.stderr

    return hub


@pytest.fixture(scope="module")
def weights():
    """The base model with a narrow head, with statistics of noise."""
    torch.manual_seed(0)
    model = build_objective(configuration())
    with torch.no_grad():
        model.visual(torch.randn(4, 3, 64, 64))
    return state_of(model)


def configuration():
    overrides = ["DATA.VOCAB_SIZE", "30", "MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H32_A2_F32"]
    return settings.load(Config, BASE, overrides)


def normalised(pixels):
    """(1, 3, H, W) float32 of (H, W, 3) uint8, as torchvision's models expect it."""
    scaled = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_features_are_those_of_the_whole_model(hub, clone, weights, tmp_path):
    state = {
        "model": weights,
        "config": configuration().model_dump(mode="json", by_alias=True),
        **vocabulary_state(Tokenizer.from_bytes(train(["red green blue grey white"], 30))),
        "versions": {"virtex": virtex.__version__},
    }
    torch.save(state, tmp_path / "own.pth")
    torch.save({"module." + name: value for name, value in weights.items()}, tmp_path / "bare.pth")
    cnn = {name.removeprefix("visual.cnn."): weights[name] for name in weights if ".cnn." in name}
    torch.save(cnn | {"fc.weight": torch.ones(1000, 2048)}, tmp_path / "torchvision.pth")
    picture = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((224, 224)).save(picture)
    torch.save(normalised(read_image(picture)), tmp_path / "images.pth")

    output, error = hub(
        """
images = torch.load("images.pth")
for name in ("own", "bare", "torchvision"):
    with torch.inference_mode():
        torch.save(load("resnet50", checkpoint=f"{name}.pth")(images), f"features_{name}.pth")
    torch.save(load("resnet50", pretrained="own.pth")(images), "features_pretrained.pth")
whole = load("virtex", checkpoint="own.pth")
torch.save(whole.features(["picture.png"]), "features_whole.pth")
import virtex
print(virtex.__file__)
"""
    )
    assert (output.strip(), error) == (str(clone / "src" / "virtex" / "__init__.py"), "")
    expected = virtex.load(tmp_path / "own.pth").features([picture])
    assert expected.shape == (1, 2048)
    # Another memory layout of the same convolutions.
    close = {"rtol": 1e-4, "atol": 1e-4 * float(expected.abs().max())}
    for name in ("own", "bare", "torchvision", "pretrained", "whole"):
        found = torch.load(tmp_path / f"features_{name}.pth")
        torch.testing.assert_close(found, expected, **close)


def test_without_a_checkpoint_they_are_torchvisions_networks_alone(hub, weights, tmp_path):
    """The values of one network; of the others the sizes, without memory for them."""
    torch.save({"model": weights}, tmp_path / "weights.pth")
    lines = f"""
torch.manual_seed(3)
network = load("resnet50")
assert not network.training
torch.save(network.state_dict(), "resnet50.pth")
with torch.device("meta"):
    states = {{name: load(name).state_dict() for name in {BACKBONES}}}
    torch.save({{n: {{k: v.shape for k, v in s.items()}} for n, s in states.items()}}, "sizes.pth")
    load("resnet101", checkpoint="weights.pth")
"""
    output, error = hub(lines, blocked=BEYOND_TORCH)
    assert output == ""
    torch.manual_seed(3)
    expected = torchvision.models.resnet50(zero_init_residual=True)
    del expected.fc
    assert_same(torch.load(tmp_path / "resnet50.pth"), expected.state_dict())
    sizes = torch.load(tmp_path / "sizes.pth")
    for name in BACKBONES:
        with torch.device("meta"):
            expected = torchvision.models.get_model(name)
        del expected.fc
        assert sizes[name] == {key: value.shape for key, value in expected.state_dict().items()}
    # Weights of another network are named.
    last = error[error.index("UserError") :]
    assert "the backbone in weights.pth does not fit resnet101" in last
    assert re.search(r"missing keys \(\d+\): layer3\.10\.bn1\.bias", last)
    assert "unexpected" not in last


def test_the_entries_are_the_callables_of_the_file():
    found = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = {name for name, value in found.items() if callable(value) and name[0] != "_"}
    assert entries == {*BACKBONES, "virtex"}
    assert all("checkpoint" in inspect.signature(found[name]).parameters for name in entries)


@pytest.mark.parametrize("call", [{"checkpoint": True}, {"pretrained": True}])
def test_the_published_call_that_downloads_names_the_file_to_give(call):
    entry = runpy.run_path(str(ROOT / "hubconf.py"))["resnet50"]
    with pytest.raises(UserError, match=r"checkpoint='bicaptioning_R_50_L1_H2048\.pth'"):
        entry(**call)
