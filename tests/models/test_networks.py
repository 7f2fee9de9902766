import copy
import re

import pytest
import torch
import torchvision
from tests import tiny_network
from tests.small import assert_same, spread, state_of
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import VisionTransformer

from virtex.errors import UserError
from virtex.models.networks import (
    FAMILIES,
    Network,
    _weights_url,
    check_network,
    fetch_weights,
    load_pretrained,
    network,
    network_names,
)

TRANSFORMERS = network_names(FAMILIES[-1])


NETWORKS = [name for name in network_names() if name != tiny_network.NAME]
CHANNELS = {
    name: size
    for size, names in {
        400: ["regnet_x_400mf"],
        440: ["regnet_y_400mf"],
        512: ["resnet18", "resnet34"],
        672: ["regnet_x_800mf"],
        768: ["convnext_tiny", "convnext_small", "vit_b_16", "vit_b_32"],
        784: ["regnet_y_800mf"],
        888: ["regnet_y_1_6gf"],
        912: ["regnet_x_1_6gf"],
        1008: ["regnet_x_3_2gf"],
        1024: ["convnext_base", "vit_l_16", "vit_l_32"],
        1280: ["vit_h_14"],
        1512: ["regnet_y_3_2gf"],
        1536: ["convnext_large"],
        1920: ["regnet_x_8gf"],
        2016: ["regnet_y_8gf"],
        2048: [
            *("resnet50", "resnet101", "resnet152", "regnet_x_16gf", "resnext50_32x4d"),
            *("resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
        ],
        2520: ["regnet_x_32gf"],
        3024: ["regnet_y_16gf"],
        3712: ["regnet_y_32gf"],
        7392: ["regnet_y_128gf"],
    }.items()
    for name in names
}


class WithoutMemory(TorchFunctionMode):
    """Parameters on the meta device; RegNets compute their widths with tensors of numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **((kwargs or {}) | device))


@pytest.fixture(scope="module")
def initial():
    return network("resnet18", feature_size=512, image_size=224)


@pytest.fixture
def resnet18(initial):
    """A ResNet-18 for a test to load weights into."""
    return copy.deepcopy(initial)


def transformer(image_size=64, *, classes=None, seed=0):
    """A vision transformer of two narrow layers and patches of 16 pixels."""
    cnn = VisionTransformer(image_size, 16, 2, 2, 8, 12, num_classes=classes or 1)
    spread(cnn, seed)
    if classes is None:
        cnn.heads.head = nn.Identity()
    return Network("vit_b_16", FAMILIES[-1], cnn)


@pytest.fixture(scope="module")
def torchvisions():
    """A state of torchvision's own ResNet-18, with its classifier."""
    torch.manual_seed(1)
    return torchvision.models.resnet18().state_dict()


def without_classifier(state):
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


# Names and sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_a_grid_of_its_feature_size(name):
    size = CHANNELS[name]
    with WithoutMemory():
        built = network(name, feature_size=size, image_size=224)
    cnn = built.cnn.to("meta").eval()
    grid = built.grid(cnn, torch.empty(1, 3, 224, 224, device="meta"))
    side = 224 // cnn.patch_size if name in TRANSFORMERS else 7
    assert grid.shape == (1, size, side, side)


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "convnext_tiny", "vit_b_32"])
def test_wrong_feature_size_names_the_right_one(name):
    wanted = rf"is 2048, but {name} gives {CHANNELS[name]} channels; set .* {CHANNELS[name]}$"
    with WithoutMemory(), pytest.raises(UserError, match=wanted):
        network(name, feature_size=2048, image_size=224)


def test_the_kinds_of_network_are_all_there():
    assert CHANNELS.keys() <= set(network_names())


def test_every_name_is_of_one_family():
    names = [name for family in FAMILIES for name in network_names(family)]
    assert sorted(names) == network_names()


@pytest.mark.parametrize("name", ["vgg16", "ResNet18", "", "quantized_resnet18", "fcn_resnet50"])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(UserError, match=rf"NAME is 'torchvision::{name}', an unknown") as caught:
        network(name, feature_size=512, image_size=224)
    assert str(caught.value).endswith(f"Supported: {', '.join(network_names())}")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("resnet19", "resnet18"), ("convnext_tny", "convnext_tiny"), ("vit_b16", "vit_b_16")],
)
def test_unknown_name_brings_the_nearest(name, meant):
    with pytest.raises(
        UserError, match=rf"unknown backbone; did you mean 'torchvision::{meant}'\? S"
    ):
        check_network(name, 224)


def test_a_transformer_is_built_for_the_images_size():
    with torch.device("meta"):
        built = network("vit_h_14", feature_size=1280, image_size=42)
    assert built.cnn.encoder.pos_embedding.shape == (1, 1 + 3 * 3, 1280)


@pytest.mark.parametrize(
    ("name", "size", "fitting"),
    [("vit_b_32", 48, 64), ("vit_h_14", 32, 42), ("vit_b_16", 225, 240)],
)
def test_an_image_that_does_not_divide_into_patches_is_refused(name, size, fitting):
    wanted = rf"IMAGE_CROP_SIZE is {size}, .* size of {name}, .* such as {fitting}, or another"
    with pytest.raises(UserError, match=wanted):
        network(name, feature_size=768, image_size=size)
    check_network(name, fitting)


def test_other_networks_take_images_of_any_size():
    for family in FAMILIES[:-1]:
        check_network(network_names(family)[0], 225)


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_at_zero_if_asked(zero):
    """So that every stage begins as its shortcut (Goyal et al., 2017, section 5.1)."""
    cnn = network("resnet18", feature_size=512, image_size=32, zero_init_residual=zero).cnn
    ends = [block.bn2.weight for stage in (cnn.layer1, cnn.layer4) for block in stage]
    assert len(ends) == 4
    assert {bool(weight.any()) for weight in ends} == {not zero}


@pytest.mark.parametrize(
    ("name", "size", "classifier"),
    [
        ("resnet18", 512, {"fc.weight", "fc.bias"}),
        ("regnet_y_400mf", 440, {"fc.weight", "fc.bias"}),
        ("convnext_tiny", 768, {"classifier.2.weight", "classifier.2.bias"}),
        ("vit_b_32", 768, {"heads.head.weight", "heads.head.bias"}),
    ],
)
def test_names_are_torchvisions_without_the_linear_classifier(name, size, classifier):
    with WithoutMemory():
        whole = torchvision.models.get_model(name).state_dict()
        own = network(name, feature_size=size, image_size=224).cnn.state_dict()
    assert whole.keys() - own.keys() == classifier
    assert list(own) == [key for key in whole if key not in classifier]


# Pretrained weights


@pytest.mark.parametrize(
    "saved",
    [
        lambda state: state,
        lambda state: {**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
        without_classifier,
        lambda state: {"model": state, "epoch": 3, 0: "other"},
        lambda state: {
            "model": {f"visual.cnn.{name}": value for name, value in state.items()}
            | {"textual.output.bias": torch.zeros(3)},
            "iteration": 5,
        },
        lambda state: {
            f"visual.cnn.{name}": value for name, value in without_classifier(state).items()
        },
        lambda state: {
            name: value for name, value in state.items() if not name.endswith("_tracked")
        },
    ],
    ids=[
        *("whole", "other_classes", "no_classifier", "under_model"),
        *("virtex", "virtex_bare", "no_counters"),
    ],
)
def test_weights_are_found_in_what_torchvision_and_virtex_save(saved, torchvisions, resnet18):
    load_pretrained(resnet18, saved(torchvisions), "a.pth")
    assert_same(resnet18.cnn.state_dict(), without_classifier(torchvisions))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"bn1.bias": None}, r"  missing keys \(1\): bn1\.bias"),
        ({"extra": torch.zeros(1), 7: 1}, r"  unexpected keys \(2\): 7, extra"),
        ({"bn1.bias": torch.zeros(3)}, r"  size mismatch \(1\): bn1\.bias \[3\] instead of \[64\]"),
        ({"bn1.bias": "none"}, r"  size mismatch \(1\): bn1\.bias str instead of \[64\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(spoil, message, torchvisions, resnet18):
    spoilt = torchvisions | spoil
    before = state_of(resnet18.cnn)
    wanted = rf"VISUAL\.PRETRAINED: the weights of a\.pth do not fit resnet18; .*:\n{message}$"
    with pytest.raises(UserError, match=wanted):
        load_pretrained(resnet18, {k: v for k, v in spoilt.items() if v is not None}, "a.pth")
    assert_same(resnet18.cnn.state_dict(), before)


def test_a_transformers_weights_keep_their_values():
    saved = transformer(classes=5, seed=1).cnn
    built = transformer()
    load_pretrained(built, state_of(saved), "a.pth")
    expected = {k: v for k, v in state_of(saved).items() if not k.startswith("heads.")}
    assert_same(built.cnn.state_dict(), expected)


def test_a_transformers_old_names_are_known():
    state = state_of(transformer(seed=1).cnn)
    old = {
        re.sub(r"mlp\.([03])\.", lambda found: f"mlp.linear_{1 + int(found[1]) // 3}.", name): value
        for name, value in state.items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in old
    built = transformer()
    load_pretrained(built, old, "a.pth")
    assert_same(built.cnn.state_dict(), state)


def test_a_transformers_positions_are_stretched_over_another_image_size():
    state = state_of(transformer(64, seed=1).cnn)
    built = transformer(112)
    load_pretrained(built, state, "a.pth")
    got, given = built.cnn.encoder.pos_embedding[0], state["encoder.pos_embedding"][0]
    assert torch.equal(got[0], given[0])  # of the class token
    stretched, grid = got[1:].view(7, 7, 8), given[1:].view(4, 4, 8)
    # Every second position of 7 x 7 lies on one of 4 x 4; weights of 1 and 0 up to rounding.
    torch.testing.assert_close(stretched[::2, ::2], grid, rtol=0, atol=1e-5)
    # Between two: a cubic of four, whose weights add up to one.
    ones = torch.ones_like(state["encoder.pos_embedding"])
    load_pretrained(built, state | {"encoder.pos_embedding": ones}, "a.pth")
    torch.testing.assert_close(built.cnn.encoder.pos_embedding, torch.ones(1, 50, 8))


@pytest.mark.parametrize("shape", [(1, 6, 8), (1, 1, 8), (17, 8), (2, 17, 8), (1, 17, 7)])
def test_positions_that_are_no_square_are_of_another_shape(shape):
    state = state_of(transformer(64).cnn) | {"encoder.pos_embedding": torch.zeros(shape)}
    with pytest.raises(UserError, match=r"size mismatch \(1\): encoder\.pos_embedding \["):
        load_pretrained(transformer(112), state, "a.pth")


# Torchvision's own files


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_weights_whose_file_names_their_digest(name):
    choices = torchvision.models.get_model_weights(name).__members__
    url = _weights_url(name, choices)
    assert re.search(r"-[0-9a-f]{8}\.pth$", url)
    if "IMAGENET1K_V1" in choices:
        assert url == choices["IMAGENET1K_V1"].url


def test_a_network_without_weights_is_refused():
    with pytest.raises(UserError, match=r"torchvision has no weights for new; .* a local file"):
        _weights_url("new", {})


def test_weights_that_were_fetched_before_are_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    path = tmp_path / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert fetch_weights("resnet18") == path


def test_weights_that_cannot_be_had_are_an_error_with_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # no directory can be made below a file, nor anything fetched
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    wanted = (
        r"of resnet18 could not be downloaded .*; put resnet18-\w+\.pth \(from .*\) into .*file.*, "
        r"or set MODEL\.VISUAL\.PRETRAINED to the path of a local file, or to false"
    )
    with pytest.raises(UserError, match=wanted):
        fetch_weights("resnet18")
