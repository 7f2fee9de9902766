"""Each knob reaches its object."""

from pathlib import Path

import pytest
import torch
import torchvision
from tests import small

from virtex.build.model import (
    build_backbone,
    build_captioner,
    build_objective,
    check_backbone,
    check_settings,
)
from virtex.build.optimizer import build_optimizer, build_schedule
from virtex.build.transforms import transform_steps
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.config.section import conflict_text
from virtex.data import transforms
from virtex.decoding.captioner import BeamSearch, NucleusSampling
from virtex.errors import UserError
from virtex.models.modes import SizesAlone
from virtex.optim.lookahead import Lookahead
from virtex.text.tokenizer import Tokenizer, train

SCENES = (
    Path(__file__).parents[1].parent / "src" / "virtex" / "configs" / "scenes" / "bicaptioning.yaml"
)


IDS = [
    *("DATA.UNK_INDEX", "0", "DATA.SOS_INDEX", "1", "DATA.EOS_INDEX", "2", "DATA.MASK_INDEX", "3")
]


def config_of(*overrides):
    return settings.load(Config, SCENES, [*IDS, *overrides])


def objective_of(*overrides):
    """Without memory for its weights."""
    with torch.device("meta"):
        return build_objective(config_of(*overrides))


def test_bicaptioning_shares_all_but_the_transformers():
    model = objective_of()
    forward, backward = model.textual, model.backward_textual
    assert forward.visual_projection is backward.visual_projection
    assert forward.embedding is backward.embedding
    assert forward.output is backward.output
    assert forward.transformer is not backward.transformer
    assert forward.output.weight is forward.embedding.words.weight


def test_captioning_has_no_backward_parameters():
    model = objective_of("MODEL.NAME", "captioning")
    assert model.backward_textual is None
    assert not any("backward" in name for name, _ in model.named_parameters())
    assert model.textual.output.weight is model.textual.embedding.words.weight


TOKENS = ("MODEL.AUXILIARY.TOKENS.WEIGHT",)


def test_a_second_target_changes_nothing_of_the_task_and_none_has_no_trace():
    states, orders = [], []
    for weight in (None, "0", "0.5"):
        torch.manual_seed(3)
        model = build_objective(config_of(*(() if weight is None else (*TOKENS, weight))))
        states.append(model.state_dict())
        orders.append(model.loss_names)
    small.assert_same(states[0], states[1])
    added = [name for name in states[2] if name not in states[0]]
    assert {name.rpartition(".")[0] for name in added} == {
        "auxiliaries.tokens.classifier.output",
        "auxiliaries.tokens.targets.label_counts",
    }
    small.assert_same(states[0], {name: states[2][name] for name in states[0]})
    main = ("captioning_forward", "captioning_backward")
    assert orders == [main, main, (*main, "tokens")]
    assert model.weighted({"tokens": 3.0}) == {"tokens": 1.5}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*TOKENS, "1", "MODEL.NAME", "token_classification"), "only for a task that predicts"),
        (("MODEL.TOKEN_WEIGHTING", "idf"), "expected a weighting only for token_classification"),
        (
            ("DATA.CAPTIONS_PER_IMAGE", "2", "MODEL.NAME", "multilabel_classification"),
            "expected several captions only for a task that reads captions",
        ),
        (
            ("MODEL.TEXTUAL.LABEL_SMOOTHING", "0.1", "MODEL.NAME", "token_classification"),
            "expected smoothing only for a task that predicts captions",
        ),
    ],
)
def test_settings_of_captions_are_refused_where_no_loss_takes_them(overrides, message):
    conflicts = conflict_text(check_settings(config_of(*overrides)))
    assert message in conflicts


def test_virtex_is_another_name_of_bicaptioning():
    one, other = (objective_of("MODEL.NAME", name) for name in ("virtex", "bicaptioning"))
    assert list(one.state_dict()) == list(other.state_dict())


@pytest.mark.parametrize(("kind", "norm_first"), [("post", False), ("pre", True)])
def test_architecture_reaches_the_layers(kind, norm_first):
    name = f"transdec_{kind}norm::L3_H24_A6_F40"
    model = objective_of("MODEL.TEXTUAL.NAME", name, "MODEL.TEXTUAL.DROPOUT", "0.3")
    for head in (model.textual, model.backward_textual):
        assert len(head.transformer.layers) == 3
        assert {layer.norm_first for layer in head.transformer.layers} == {norm_first}
        assert {layer.self_attn.heads for layer in head.transformer.layers} == {6}
        assert {layer.self_attn.dropout.p for layer in head.transformer.layers} == {0.3}
        assert {tuple(layer.linear1.weight.shape) for layer in head.transformer.layers} == {
            (40, 24)
        }
    assert model.textual.embedding.dropout.p == 0.3


def test_data_figures_reach_the_embedding():
    wide = ("MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H128_A4_F256")
    model = objective_of(*wide, "DATA.VOCAB_SIZE", "77", "DATA.MAX_CAPTION_LENGTH", "33")
    assert model.textual.embedding.words.weight.shape == (77, 128)
    assert model.textual.embedding.positions.weight.shape == (33, 128)


def test_frozen_backbone_has_no_trainable_parameter():
    model = objective_of("MODEL.VISUAL.FROZEN", "true")
    assert not any(p.requires_grad for p in model.visual.parameters())
    assert all(p.requires_grad for p in model.textual.parameters())


@pytest.mark.parametrize(
    ("choice", "layout"), [("true", torch.channels_last), ("false", torch.contiguous_format)]
)
def test_channels_last_chooses_the_layout(choice, layout):
    assert objective_of("CHANNELS_LAST", choice).visual.layout is layout


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_residual_reaches_the_network(zero):
    network = build_backbone(config_of("MODEL.VISUAL.ZERO_INIT_RESIDUAL", str(zero))).cnn
    assert bool(network.layer1[0].bn2.weight.any()) is not zero


def test_crop_size_reaches_a_vision_transformer():
    model = objective_of(
        *("MODEL.VISUAL.NAME", "torchvision::vit_b_16", "MODEL.VISUAL.FEATURE_SIZE", "768"),
        *("DATA.IMAGE_CROP_SIZE", "96"),
    )
    assert model.visual.cnn.encoder.pos_embedding.shape == (1, 1 + 6 * 6, 768)
    images = torch.empty(2, 3, 96, 96, device="meta")
    assert model.textual.project(model.visual(images)).shape == (2, 6 * 6, 256)


def saved_resnet18(path, **beside):
    torch.manual_seed(1)
    weights = build_backbone(config_of()).cnn.state_dict()
    torch.save(weights | beside, path)
    return weights


def test_pretrained_weights_come_from_the_named_file(tmp_path):
    path = tmp_path / "a.pth"
    weights = saved_resnet18(path)
    config = config_of("MODEL.VISUAL.PRETRAINED", str(path))
    small.assert_same(build_objective(config).visual.cnn.state_dict(), weights)


def test_pretrained_weights_come_from_torchvisions_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    weights = saved_resnet18(path, **{"fc.weight": torch.zeros(1000, 512)})
    visual = build_backbone(config_of("MODEL.VISUAL.PRETRAINED", "true"))
    small.assert_same(visual.cnn.state_dict(), weights)


class Harmful:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_that_is_no_weights_is_refused_with_its_setting(tmp_path):
    path, made = tmp_path / "a.pth", tmp_path / "made"
    config = config_of("MODEL.VISUAL.PRETRAINED", str(path))
    for write, message in (
        (lambda: path.write_bytes(b"words"), "is not a checkpoint"),
        (lambda: torch.save({"fc.weight": Harmful(made)}, path), "is not a checkpoint"),
        (lambda: torch.save([1], path), "holds a list"),
        (lambda: torch.save({"other": 1}, path), "unexpected keys (1): other"),
    ):
        write()
        with pytest.raises(UserError, match=rf"MODEL\.VISUAL\.PRETRAINED: .*{path} .*") as caught:
            build_backbone(config)
        assert message in str(caught.value)
    assert not made.exists()


@pytest.mark.parametrize("find", [check_backbone, build_backbone])
def test_weights_that_cannot_be_fetched_are_missed_before_a_backbone_is_built(
    find, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()  # no directory can be made below a file
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(
        UserError, match=r"VISUAL\.PRETRAINED: .* of resnet18 could not be downloaded"
    ):
        find(config_of("MODEL.VISUAL.PRETRAINED", "true"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.VISUAL.PRETRAINED", "/nowhere/a.pth"), "PRETRAINED: no file at /nowhere/a.pth; "),
        (("MODEL.VISUAL.NAME", "torchvision::resnet19"), "'torchvision::resnet19', an unknown"),
        (("MODEL.VISUAL.FEATURE_SIZE", "2048"), "but resnet18 gives 512 .*FEATURE_SIZE 512"),
    ],
)
@pytest.mark.parametrize("find", [check_backbone, build_backbone])
def test_what_is_wrong_with_a_backbone_is_seen_before_it_is_built(find, overrides, message):
    with pytest.raises(UserError, match=message):
        find(config_of(*overrides))


def test_a_backbone_that_can_be_built_passes_the_check(tmp_path):
    (tmp_path / "a.pth").touch()
    check_backbone(config_of("MODEL.VISUAL.PRETRAINED", str(tmp_path / "a.pth")))
    check_backbone(
        config_of(
            *("MODEL.VISUAL.NAME", "torchvision::vit_h_14", "DATA.IMAGE_CROP_SIZE", "56"),
            *("MODEL.VISUAL.FEATURE_SIZE", "1280"),
        )
    )


def test_pretrained_weights_are_not_read_where_others_follow(tmp_path):
    config = config_of("MODEL.VISUAL.PRETRAINED", str(tmp_path / "none.pth"))
    check_backbone(config, weights_follow=True)
    build_backbone(config, weights_follow=True)


def test_initial_std_reaches_both_heads():
    narrow = ("MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H64_A2_F128")
    model = build_objective(config_of(*narrow, "MODEL.TEXTUAL.INITIAL_STD", "0.5"))
    for head in (model.textual, model.backward_textual):
        weights = head.transformer.layers[0].linear1.weight
        # 8,192 draws: five standard errors are 4 %.
        assert float(weights.detach().std()) == pytest.approx(0.5, rel=0.04)


def test_the_first_weights_are_a_function_of_the_random_state():
    config = config_of("MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H8_A2_F8")
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_objective(config).state_dict())
    one, again, other = models
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["visual.cnn.conv1.weight"], other["visual.cnn.conv1.weight"])


def test_pixel_statistics_come_from_normalize():
    transforms_of = "normalize::{'mean': (0.1, 0.2, 0.3), 'std': (0.4, 0.5, 0.6)}"
    model = build_backbone(
        config_of(
            "DATA.IMAGE_TRANSFORM_TRAIN",
            f'["random_resized_crop", "{transforms_of}"]',
            "DATA.IMAGE_TRANSFORM_VAL",
            f'["smallest_resize", "center_crop", "{transforms_of}"]',
        )
    )
    # Float32 values of 0 … 255.
    assert model.pixel_mean.flatten().tolist() == pytest.approx([25.5, 51, 76.5], rel=1e-6)
    assert model.pixel_std.flatten().tolist() == pytest.approx([102, 127.5, 153], rel=1e-6)


def test_transforms_are_built_in_order_with_their_arguments():
    config = config_of(
        "DATA.IMAGE_TRANSFORM_TRAIN",
        """["horizontal_flip::{'p': 0.25}", "color_jitter::{'hue': 0.3}",
            "random_resized_crop::{'scale': (0.08, 1.0), 'ratio': (0.5, 2.0)}", "normalize"]""",
    )
    built = transform_steps(config.data.transforms_train, 48)
    assert built == [
        transforms.HorizontalFlip(p=0.25),
        transforms.ColorJitter(hue=0.3),
        transforms.RandomResizedCrop(48, scale=(0.08, 1.0), ratio=(0.5, 2.0)),
    ]
    expected = [transforms.SmallestResize(48), transforms.CenterCrop(48)]
    assert transform_steps(config.data.transforms_val, 48) == expected
    with_margin = ("DATA.IMAGE_TRANSFORM_VAL", _margin(75))
    config = config_of(*with_margin)
    expected = [transforms.SmallestResize(75), transforms.CenterCrop(48)]
    assert transform_steps(config.data.transforms_val, 48) == expected
    with pytest.raises(UserError, match=r"IMAGE_CROP_SIZE.* not below the crop size"):
        config_of("DATA.IMAGE_TRANSFORM_VAL", _margin(40), "DATA.IMAGE_CROP_SIZE", "48")


def _margin(size):
    return f"""["smallest_resize::{{'size': {size}}}", center_crop, normalize]"""


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("beam_search", BeamSearch(4)),
        ("nucleus_sampling", NucleusSampling(nucleus_size=0.7, samples=1, seed=9)),
    ],
)
def test_captioner_has_the_configured_strategy(name, strategy):
    config = config_of(
        *("MODEL.DECODER.NAME", name, "MODEL.DECODER.BEAM_SIZE", "4"),
        *("MODEL.DECODER.NUCLEUS_SIZE", "0.7", "MODEL.DECODER.MAX_DECODING_STEPS", "8"),
        *("RANDOM_SEED", "9"),
    )
    model, tokenizer = small.captioning(), Tokenizer.from_bytes(train(["ab ba"], 9))
    built = build_captioner(config, model, tokenizer)
    assert built.strategy == strategy
    assert built.max_tokens == 7  # beside [SOS]
    assert (built.visual, built.textual) == (model.visual, model.textual)


def test_optimizer_and_lookahead_are_the_configured_ones():
    model = small.captioning()
    plain = build_optimizer(config_of("OPTIM.WEIGHT_DECAY", "0.02"), model)
    assert isinstance(plain, torch.optim.AdamW)
    assert {group["weight_decay"] for group in plain.param_groups} == {0.0, 0.02}
    wrapped = build_optimizer(
        config_of(
            *("OPTIM.OPTIMIZER_NAME", "sgd", "OPTIM.SGD_MOMENTUM", "0.8"),
            *("OPTIM.CNN_LR", "0.3", "OPTIM.LR", "0.01"),
            *("OPTIM.LOOKAHEAD.USE", "true", "OPTIM.LOOKAHEAD.ALPHA", "0.25"),
            *("OPTIM.LOOKAHEAD.STEPS", "7"),
        ),
        model,
    )
    assert isinstance(wrapped, Lookahead)
    assert isinstance(wrapped.optimizer, torch.optim.SGD)
    assert (wrapped.alpha, wrapped.steps) == (0.25, 7)
    assert {group["momentum"] for group in wrapped.param_groups} == {0.8}
    rates = {group["name"].split("_")[0]: group["peak_lr"] for group in wrapped.param_groups}
    assert rates == {"visual": 0.3, "textual": 0.01}


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("none", [0, 1, 1, 1]),
        ("linear", [0, 1, 0.5, 0]),
        ("cosine", [0, 1, 0.5, 0]),
        ("multistep", [0, 1, 0.2, 0.04]),
    ],
)
def test_schedule_is_the_configured_one(name, factors):
    steps = ["OPTIM.LR_STEPS", "[50, 90]", "OPTIM.LR_GAMMA", "0.2"] if name == "multistep" else []
    config = config_of(
        *("OPTIM.LR_DECAY_NAME", name, "OPTIM.NUM_ITERATIONS", "100", "OPTIM.WARMUP_STEPS", "10"),
        *steps,
    )
    schedule = build_schedule(config)
    assert [schedule(step) for step in (0, 10, 55, 100)] == pytest.approx(factors, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 512), ("regnet_y_400mf", 440), ("convnext_tiny", 768), ("vit_b_32", 768)],
)
def test_a_network_is_checked_without_memory_for_it(name, size):
    """Its width is known before any process starts, whatever its family."""
    settings = {"name": f"torchvision::{name}", "feature_size": size}
    check_backbone(Config(model={"visual": settings}))
    with SizesAlone():
        backbone = build_backbone(Config(model={"visual": settings}))
    assert {p.device.type for p in backbone.parameters()} == {"meta"}
    with pytest.raises(UserError, match=str(size)):
        check_backbone(Config(model={"visual": {**settings, "feature_size": 7}}))
