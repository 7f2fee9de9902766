import re
from pathlib import Path

import pytest
import torch
import torchvision

from virtex.build.model import build_objective
from virtex.checkpoints import file
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.evaluation.backbones import open_backbones, weights_hash

NETWORK = "torchvision::resnet18"
YAML = """
RANDOM_SEED: 7
DATA: {VOCAB_SIZE: 45, UNK_INDEX: 0, SOS_INDEX: 1, EOS_INDEX: 2, MASK_INDEX: 3, IMAGE_CROP_SIZE: 32}
MODEL:
  VISUAL: {NAME: "torchvision::resnet18", FEATURE_SIZE: 512}
  TEXTUAL: {NAME: "transdec_postnorm::L1_H32_A2_F64"}
"""


@pytest.fixture(scope="module")
def yaml(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "model.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def started(yaml):
    """The model with which a run of the configuration begins, and its configuration."""
    config = settings.load(Config, yaml, [])
    torch.manual_seed(config.random_seed)
    return build_objective(config), config


@pytest.fixture(scope="module")
def own(started, yaml):
    objective, config = started
    path = yaml.parent / "checkpoint_3.pth"
    state = {
        "model": objective.state_dict(),
        "config": config.model_dump(mode="json", by_alias=True),
        "iteration": 3,
        "versions": {"virtex": "1"},
    }
    file.save(path, state)
    yield path
    path.unlink()


def state_dict(path, name="resnet18"):
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), path)
    return str(path)


def same(one, other):
    own, theirs = one.state_dict(), other.state_dict()
    return own.keys() == theirs.keys() and all(torch.equal(own[n], theirs[n]) for n in own)


def test_random_weights_are_those_with_which_a_run_begins(started, yaml, own):
    objective, _ = started
    for options in ({"names": ["random"], "config": yaml}, {"names": [str(own), "random"]}):
        backbone = open_backbones(**options)[-1]
        assert same(backbone.module, objective.visual)
        assert (backbone.path, backbone.iteration) == (None, None)


def test_a_checkpoint_of_a_run_brings_its_network_and_iteration(own, started):
    (backbone,) = open_backbones([str(own)])
    assert (backbone.network, backbone.image_size) == ("resnet18", 32)
    assert (backbone.iteration, backbone.path) == (3, own)
    assert same(backbone.module, started[0].visual)
    assert not backbone.module.training


def test_weights_in_every_form_have_one_hash(own, started, yaml, tmp_path):
    objective, _ = started
    published, bare = tmp_path / "published.pth", tmp_path / "bare.pth"
    torch.save({"model": objective.state_dict()}, published)
    torch.save(objective.visual.cnn.state_dict(), bare)
    names = [str(own), str(published), str(bare), "random"]
    opened = open_backbones(names, config=yaml)
    assert len({one.sha256 for one in opened}) == 1


def test_other_normalisation_is_another_backbone(yaml):
    state = [dict(open_backbones(["random"], config=yaml)[0].module.named_buffers())]
    state.append({**state[0], "pixel_mean": state[0]["pixel_mean"] + 1})
    assert weights_hash(state[0]) != weights_hash(state[1])


def test_networks_of_each_file_may_differ(own, tmp_path):
    bare = state_dict(tmp_path / "r34.pth", "resnet34")
    one, two = open_backbones([str(own), bare], network_name="torchvision::resnet34", image_size=48)
    assert (one.network, two.network) == ("resnet18", "resnet34")
    assert (one.image_size, two.image_size) == (48, 48)


def test_torchvisions_weights_come_by_name(tmp_path, monkeypatch):
    from virtex.evaluation import backbones

    path = state_dict(tmp_path / "imagenet.pth")
    monkeypatch.setattr(backbones, "fetch_weights", lambda *_, **__: Path(path))
    named, read = open_backbones(["torchvision", path], network_name=NETWORK)
    assert same(named.module, read.module)
    assert (named.path, named.sha256) == (None, read.sha256)


def test_weights_that_do_not_fit_name_the_flag(tmp_path):
    path = state_dict(tmp_path / "r34.pth", "resnet34")
    with pytest.raises(UserError) as error:
        open_backbones([path], network_name=NETWORK)
    message = str(error.value)
    assert re.search(r"--checkpoint .*r34\.pth: the weights do not fit resnet18; give", message)
    assert "--network" in message
    assert "MODEL.VISUAL" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("names", "network", "message"),
    [
        (["random"], None, "--checkpoint random: nothing says which network it is"),
        (["random", "random"], NETWORK, "--checkpoint random is given more than once"),
        (["random"], "resnet18", "--network resnet18: expected a name such as torchvision::"),
        (["random"], "torchvision::resnet17", "did you mean 'torchvision::resnet1[58]'"),
        (["nowhere.pth"], NETWORK, "nowhere.pth"),
        (["."], NETWORK, "directory"),
    ],
)
def test_what_cannot_be_opened_is_refused(tmp_path, monkeypatch, names, network, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        open_backbones(names, network_name=network)
    assert "\n" not in str(error.value)


def test_an_image_size_that_does_not_fit_the_network_is_refused():
    with pytest.raises(UserError, match=r"--image-size does not fit the network: .*16 pixels"):
        open_backbones(["random"], network_name="torchvision::vit_b_16", image_size=50)


def test_without_internet_the_file_to_fetch_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"--checkpoint torchvision: .*no route.*or leave it out"):
        open_backbones(["torchvision"], network_name=NETWORK)
