"""Laws of the configuration; its values are read from YAML as a user writes them."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from virtex.build.model import load_config
from virtex.checkpoints.state import Checkpoint
from virtex.config import loading as settings
from virtex.config.data import Data
from virtex.config.model import Textual
from virtex.config.optim import Optim
from virtex.config.schema import Config, TaskName, check_processes
from virtex.config.specs import (
    TextualArchitecture,
    TransformSpec,
    parse_architecture,
    parse_network,
    parse_transform,
)
from virtex.errors import UserError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loads pairs of KEY VALUE on top of the defaults, for a new run."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("RANDOM_SEED: 0")
    return lambda *overrides: load_config(Path("a.yaml"), overrides)


def problem(load, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(*overrides)
    return str(caught.value)


# Values


def test_dump_of_any_run_loads_back_equal(tmp_path: Path) -> None:
    data = Data(vocab_size=81, image_transform_val=("center_crop", "normalize::{}"))
    optim = Optim(
        lr_decay_name="multistep", lr_steps=(10, 20), warmup_steps=9, weight_decay=1e-5, lr=1e16
    )
    config = Config(amp=False, data=data, optim=optim)
    path = tmp_path / "config.yaml"
    path.write_text(settings.dump(config))
    assert settings.load(Config, path) == config


def test_values_are_frozen_and_travel_to_other_processes() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.optim.lr = 1.0
    assert pickle.loads(pickle.dumps(config)) == config


def test_every_setting_says_what_it_is_for() -> None:
    definitions = settings.json_schema(Config)["$defs"]
    sections = [*definitions.values(), settings.json_schema(Config)]
    for section in sections:
        for name, node in section["properties"].items():
            assert "description" in node or "$ref" in node, name
        assert section["description"]


@pytest.mark.cold
def test_importing_the_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys, virtex.config.schema, virtex.config.loading\n"
        "heavy = {'torch', 'numpy', 'cv2', 'torchvision', 'sentencepiece'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Strings with more than one value


@given(
    st.booleans(), st.integers(1, 99), st.integers(1, 99), st.integers(1, 99), st.integers(1, 9999)
)
def test_every_architecture_is_read_back_from_its_name(
    norm_first: bool, layers: int, heads: int, head_width: int, feedforward: int
) -> None:
    width = heads * head_width
    order = "pre" if norm_first else "post"
    text = f"transdec_{order}norm::L{layers}_H{width}_A{heads}_F{feedforward}"
    expected = TextualArchitecture(norm_first, layers, width, heads, feedforward)
    assert parse_architecture(text) == expected
    assert Textual(name=text).architecture == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transdec_postnorm::L1_H64_A3_F256", "divisible by the number of heads (A = 3)"),
        ("transdec_postnorm::L0_H64_A2_F256", "expected L, H, A and F of at least 1"),
        ("transdec_postnorm::L1_H64_A0_F256", "expected L, H, A and F of at least 1"),
        ("transdec_postnorm", "such as 'transdec_postnorm::L1_H1024_A16_F4096'"),
        ("transdec_midnorm::L1_H64_A2_F256", "expected transdec_postnorm or transdec_prenorm"),
        ("transdec_postnorm::L1_H64_A2_F256\n", "expected transdec_postnorm"),
        ("transdec_postnorm::L1_H64_A2", "expected transdec_postnorm"),
    ],
)
def test_an_impossible_architecture_is_refused(load, text: str, message: str) -> None:
    quoted = text.replace("\n", "\\n")
    line = problem(load, "MODEL.TEXTUAL.NAME", f'"{quoted}"')
    assert line.startswith("'MODEL.TEXTUAL.NAME' is 'transdec")
    assert message in line


def test_a_backbone_is_named_by_its_library() -> None:
    assert parse_network("torchvision::wide_resnet50_2") == "wide_resnet50_2"
    assert Config().model.visual.network == "resnet50"


@pytest.mark.parametrize(
    "text", ["resnet50", "torchvision::", "timm::resnet50", "torchvision::a-b"]
)
def test_a_backbone_without_its_library_is_refused(load, text: str) -> None:
    assert problem(load, "MODEL.VISUAL.NAME", f"'{text}'") == (
        f"'MODEL.VISUAL.NAME' is '{text}' on the command line; "
        "expected a network of torchvision, such as 'torchvision::resnet50'"
    )


@pytest.mark.parametrize(
    ("value", "pretrained"),
    [("true", True), ("false", False), ("a/b.pth", Path("a/b.pth")), ("'true'", Path("true"))],
)
def test_pretrained_is_a_choice_or_a_path(load, tmp_path: Path, value: str, pretrained) -> None:
    config = load("MODEL.VISUAL.PRETRAINED", value)
    assert config.model.visual.pretrained == pretrained
    (tmp_path / "again.yaml").write_text(settings.dump(config))
    assert settings.load(Config, tmp_path / "again.yaml") == config


def test_transforms_carry_all_arguments() -> None:
    assert parse_transform("random_resized_crop::{'scale': (0.08, 1)}") == TransformSpec(
        "random_resized_crop", {"scale": (0.08, 1.0), "ratio": (0.75, 1.3333)}
    )
    assert parse_transform("horizontal_flip::{'p': 1}").arguments == {"p": 1.0}
    assert parse_transform("color_jitter").arguments == {
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
        "p": 0.8,
    }
    assert parse_transform("normalize::{'mean': [0, 0, 0]}").arguments == {
        "mean": (0.0, 0.0, 0.0),
        "std": (0.229, 0.224, 0.225),
    }


def test_transforms_keep_their_order() -> None:
    data = Data()
    names = ["random_resized_crop", "horizontal_flip", "color_jitter", "normalize"]
    assert [transform.name for transform in data.transforms_train] == names
    names = ["smallest_resize", "center_crop", "normalize"]
    assert [transform.name for transform in data.transforms_val] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gaussian_blur",
            "'gaussian_blur' is an unknown transform; expected one of random_resized_crop,",
        ),
        ("horizontal_flip::{'q': 1}", "has no argument 'q'; expected arguments: p"),
        ("horizontal_flip::{1: 1}", "has no argument 1; expected arguments: p"),
        ("center_crop::{'p': 1}", "center_crop has no argument 'p'; expected arguments: none"),
        ("horizontal_flip::{'p': 1.5}", "p is 1.5; expected a number at least 0 and at most 1"),
        ("horizontal_flip::{'p': True}", "p is True; expected a number"),
        ("horizontal_flip::{'p': '1'}", "p is '1'; expected a number"),
        ("horizontal_flip::{'p': 1j}", "p is 1j; expected a number"),
        ("random_resized_crop::{'scale': 0.5}", "expected two numbers above 0 and at most 1, the"),
        ("random_resized_crop::{'scale': (0, 1)}", "expected two numbers above 0"),
        ("random_resized_crop::{'scale': (1, 0.5)}", "the smaller first"),
        ("random_resized_crop::{'ratio': (1, 1e999)}", "expected two numbers above 0, the smaller"),
        ("random_resized_crop::{'ratio': (1, 1" + "0" * 400 + ")}", "expected two numbers above 0"),
        ("color_jitter::{'hue': 0.6}", "hue is 0.6; expected a number at least 0 and at most 0.5"),
        ("horizontal_flip::", "'' is not a dictionary literal; expected arguments such as"),
        ("horizontal_flip::0.5", "'0.5' is not a dictionary literal"),
        ("horizontal_flip::dict(p=1)", "is not a dictionary literal"),
        ("horizontal_flip::{'p': [" + "[" * 999, "is not a dictionary literal"),
        ("horizontal_flip::" + "-" * 100_000 + "1", "is not a dictionary literal"),
        ("horizontal_flip::{[]: 1}", "is not a dictionary literal"),
    ],
)
def test_a_wrong_transform_is_refused(load, text: str, message: str) -> None:
    transforms = f'["{text}", center_crop, normalize]'
    assert message in problem(load, "DATA.IMAGE_TRANSFORM_VAL", transforms)


def test_a_transform_is_never_executed(load, tmp_path: Path) -> None:
    code = f"horizontal_flip::open('{tmp_path}/made', 'w')"
    problem(load, "DATA.IMAGE_TRANSFORM_TRAIN", f'["{code}", center_crop, normalize]')
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ("[]", "expected normalize exactly once, as the last transform"),
        ("[center_crop]", "expected normalize exactly once, as the last transform"),
        ("[normalize, center_crop]", "expected normalize exactly once, as the last transform"),
        ("[center_crop, normalize, normalize]", "expected normalize exactly once"),
        ("[horizontal_flip, normalize]", "expected random_resized_crop or center_crop"),
        ("[center_crop, \"normalize::{'mean': (0, 0, 0)}\"]", "with the same mean and std in both"),
    ],
)
def test_transforms_must_give_normalised_crops(load, transforms: str, message: str) -> None:
    line = problem(load, "DATA.IMAGE_TRANSFORM_VAL", transforms)
    assert "'DATA.IMAGE_TRANSFORM_VAL' is [" in line
    assert message in line


def test_normalize_written_out_equals_its_default(load) -> None:
    written = "\"normalize::{'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}\""
    config = load("DATA.IMAGE_TRANSFORM_VAL", f"[center_crop, {written}]")
    assert config.data.transforms_val[-1] == config.data.transforms_train[-1]
    assert dataclasses.is_dataclass(config.data.transforms_val[-1])


# Ranges


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("RANDOM_SEED", "-1", "a number greater than or equal to 0"),
        ("RANDOM_SEED", "4294967296", "a number less than 4294967296"),
        ("AMP", "1", "true or false"),
        ("CHANNELS_LAST", "null", "true or false"),
        ("DATA.VOCAB_SIZE", "0", "a number greater than or equal to 1 or null"),
        ("DATA.UNK_INDEX", "-1", "a number greater than or equal to 0 or null"),
        ("DATA.IMAGE_CROP_SIZE", "31", "a number greater than or equal to 32"),
        ("DATA.MAX_CAPTION_LENGTH", "2", "a number greater than or equal to 3"),
        ("DATA.USE_PERCENTAGE", "0", "a number greater than 0"),
        ("DATA.USE_PERCENTAGE", "100.1", "a number less than or equal to 100"),
        ("DATA.SUBSET_MANIFEST", "10", "a string or null (put it in quotes)"),
        ("DATA.CAPTIONS_PER_IMAGE", "0", "a number greater than or equal to 1 or 'all'"),
        ("DATA.CAPTIONS_PER_IMAGE", "half", "an integer or 'all'"),
        ("DATA.MAX_PIXELS", "0", "a number greater than or equal to 1"),
        ("DATA.MAX_IMAGE_MB", "0", "a number greater than or equal to 1"),
        ("DATA.ON_BAD_IMAGE", "ignore", "'error' or 'skip'"),
        (
            "MODEL.NAME",
            "contrastive",
            " or ".join(map(repr, get_args(TaskName))).replace(
                " or ", ", ", len(get_args(TaskName)) - 2
            ),
        ),
        ("DATA.MASKED_LM.MASK_PROPORTION", "0", "a number greater than 0"),
        ("DATA.MASKED_LM.MASK_PROBABILITY", "1.1", "a number less than or equal to 1"),
        ("MODEL.AUXILIARY.TOKENS.WEIGHT", "-1", "a number greater than or equal to 0"),
        ("MODEL.VISUAL.FEATURE_SIZE", "0", "a number greater than or equal to 1 or null"),
        ("MODEL.VISUAL.PRETRAINED", "1", "true or false or a string (put it in quotes)"),
        ("MODEL.TEXTUAL.DROPOUT", "1.0", "a number less than 1"),
        ("MODEL.TEXTUAL.LABEL_SMOOTHING", "1", "a number less than 1"),
        ("MODEL.DECODER.NAME", "greedy", "'beam_search' or 'nucleus_sampling'"),
        ("MODEL.DECODER.BEAM_SIZE", "0", "a number greater than or equal to 1"),
        ("MODEL.DECODER.NUCLEUS_SIZE", "0", "a number greater than 0"),
        ("MODEL.DECODER.MAX_DECODING_STEPS", "1", "a number greater than or equal to 2"),
        ("OPTIM.OPTIMIZER_NAME", "adam", "'sgd' or 'adamw'"),
        ("OPTIM.SGD_MOMENTUM", "1", "a number less than 1"),
        ("OPTIM.WEIGHT_DECAY", "-1e-4", "a number greater than or equal to 0"),
        ("OPTIM.CLIP_GRAD_NORM", "0", "a number greater than 0"),
        ("OPTIM.LOOKAHEAD.ALPHA", "0", "a number greater than 0"),
        ("OPTIM.LOOKAHEAD.ALPHA", "1.1", "a number less than or equal to 1"),
        ("OPTIM.LOOKAHEAD.STEPS", "0", "a number greater than or equal to 1"),
        ("OPTIM.EMA.DECAY", "1", "a number less than 1"),
        ("OPTIM.BATCH_SIZE", "0", "a number greater than or equal to 1"),
        ("OPTIM.CNN_LR", "-0.1", "a number greater than or equal to 0"),
        ("OPTIM.LR", "-1e-3", "a number greater than or equal to 0"),
        ("OPTIM.NUM_ITERATIONS", "0", "a number greater than or equal to 1 or null"),
        ("OPTIM.NUM_EPOCHS", "0", "a number greater than 0 or null"),
        ("OPTIM.WARMUP_STEPS", "-1", "a number greater than or equal to 0"),
        ("OPTIM.LR_DECAY_NAME", "step", "'none', 'linear', 'cosine' or 'multistep'"),
        ("OPTIM.LR_GAMMA", "0", "a number greater than 0"),
        ("OPTIM.MAX_NONFINITE_STEPS", "0", "a number greater than or equal to 1"),
    ],
)
def test_a_value_out_of_range_is_refused(load, key: str, value: str, expected: str) -> None:
    line = problem(load, key, value)
    assert line.startswith(f"'{key}' is ")
    assert line.endswith(f" on the command line; expected {expected}")


@pytest.mark.parametrize("value", [".nan", ".inf", "1e999"])
@pytest.mark.parametrize("key", ["OPTIM.LR", "OPTIM.CLIP_GRAD_NORM", "DATA.USE_PERCENTAGE"])
def test_a_number_that_is_not_finite_is_refused(load, key: str, value: str) -> None:
    assert "expected a finite number" in problem(load, key, value)


def test_no_decay_is_a_regular_expression(load) -> None:
    assert load("OPTIM.NO_DECAY", "none").optim.no_decay == "none"
    line = problem(load, "OPTIM.NO_DECAY", '".*(norm"')
    assert line.startswith("'OPTIM.NO_DECAY' is '.*(norm' on the command line; expected a regular")


# Settings that do not fit each other


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["OPTIM.NUM_ITERATIONS", "10000"],
            "'OPTIM.WARMUP_STEPS' is 10000 by default and 'OPTIM.NUM_ITERATIONS' is 10000 on the "
            "command line; expected a warm-up shorter than the run",
        ),
        (
            ["OPTIM.LR_DECAY_NAME", "multistep"],
            "'OPTIM.LR_DECAY_NAME' is 'multistep' on the command line and 'OPTIM.LR_STEPS' is [] "
            "by default; expected the iterations of multistep, such as LR_STEPS: [300000, 400000]",
        ),
        (["OPTIM.LR_STEPS", "[1]"], "expected LR_STEPS only with multistep"),
        (
            ["OPTIM.LR_DECAY_NAME", "multistep", "OPTIM.LR_STEPS", "[2, 2]"],
            "'OPTIM.LR_STEPS' is [2, 2] on the command line; expected iterations in increasing",
        ),
        (
            ["DATA.SOS_INDEX", "1", "DATA.EOS_INDEX", "1"],
            "'DATA.SOS_INDEX' is 1 on the command line and 'DATA.EOS_INDEX' is 1 on the command "
            "line; expected different ids, those of the tokenizer",
        ),
        (
            ["OPTIM.NUM_EPOCHS", "3", "OPTIM.NUM_ITERATIONS", "500000"],
            "'OPTIM.NUM_ITERATIONS' is 500000 on the command line and 'OPTIM.NUM_EPOCHS' is 3 on "
            "the command line; expected one length of the run, not two; set one of them to null",
        ),
        (["OPTIM.NUM_ITERATIONS", "null"], "expected the length of the run; set one of them"),
        (
            ["DATA.VOCAB_SIZE", "5", "DATA.MASK_INDEX", "5"],
            "'DATA.MASK_INDEX' is 5 on the command line and 'DATA.VOCAB_SIZE' is 5 on the command "
            "line; expected an id below the size of the vocabulary",
        ),
        (
            ["DATA.SUBSET_MANIFEST", "subset.json", "DATA.USE_PERCENTAGE", "99.5"],
            "'DATA.SUBSET_MANIFEST' is 'subset.json' on the command line and 'DATA.USE_PERCENTAGE' "
            "is 99.5 on the command line; expected only one of them",
        ),
        (
            ["MODEL.DECODER.BEAM_SIZE", "5", "DATA.VOCAB_SIZE", "4"],
            "'MODEL.DECODER.BEAM_SIZE' is 5 on the command line and 'DATA.VOCAB_SIZE' is 4 on the "
            "command line; expected a beam that is not larger than the vocabulary",
        ),
        (
            ["MODEL.NAME", "token_classification"],
            "'MODEL.NAME' is 'token_classification' on the command line and 'MODEL.TEXTUAL.NAME' "
            "is 'transdec_postnorm::L1_H2048_A32_F8192' by default; expected the textual head "
            "'none'",
        ),
        (
            ["MODEL.TEXTUAL.NAME", "none"],
            "'MODEL.NAME' is 'virtex' by default and 'MODEL.TEXTUAL.NAME' is 'none' on the command "
            "line; expected a textual head such as 'transdec",
        ),
        (
            ["DATA.SOURCES", "[{FORMAT: coco, ROOT: a}]", "DATA.ROOT", "b"],
            "on the command line and 'DATA.ROOT' is 'b' on the command line; expected only one of "
            "them; set ROOT in each of SOURCES",
        ),
        (
            ["DATA.SOURCES", "[{FORMAT: coco, ROOT: a}]", "DATA.FORMAT", "shards"],
            "'DATA.FORMAT' is 'shards' on the command line; expected only one of them",
        ),
        (
            ["DATA.SOURCES", "[{FORMAT: coco, ROOT: a, SEPARATOR: ;}]"],
            "the source a: SEPARATOR, FORMAT: expected this setting only with the format table",
        ),
        (
            ["DATA.SOURCES", "[{FORMAT: coco, ROOTS: a}]"],
            "unknown setting 'DATA.SOURCES[0].ROOTS' on the command line; did you mean "
            "'DATA.SOURCES[0].ROOT'?",
        ),
        (
            ["DATA.SOURCES", "[{FORMAT: coco, ROOT: 's3://bucket/a'}]"],
            "the source s3://bucket/a: expected a directory on a local or mounted disk",
        ),
        (
            ["DATA.FORMAT", "folder", "DATA.COLUMNS.IMAGE", "file"],
            "'DATA.COLUMNS.IMAGE' is 'file' on the command line and 'DATA.FORMAT' is 'folder' on "
            "the command line; expected this setting only with the format table",
        ),
        (
            ["DATA.FORMAT", "table", "DATA.VAL_SHARE", "0.1", "DATA.COLUMNS.SPLIT", "split"],
            "expected only one of them, as either determines the validation split",
        ),
        (["DATA.SEPARATOR", "'ab'"], "expected one character that is not a quotation mark"),
        (["DATA.ENCODING", "utf-9"], "expected the name of a text encoding, such as utf-8, cp1252"),
        (
            ["DATA.MASKED_LM.REPLACE_PROBABILITY", "0.2"],
            "expected two probabilities that add up to at most 1",
        ),
        (
            ["DATA.MAX_CAPTION_LENGTH", "12"],
            "'MODEL.DECODER.MAX_DECODING_STEPS' is 30 by default and 'DATA.MAX_CAPTION_LENGTH' is "
            "12 on the command line; expected no more decoding steps than tokens in a caption",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(load, overrides: list[str], message: str) -> None:
    assert message in problem(load, *overrides)


MULTISTEP = ("OPTIM.LR_DECAY_NAME", "multistep")
MULTILABEL = ("MODEL.NAME", "multilabel_classification", "MODEL.TEXTUAL.NAME", "none")


@pytest.mark.parametrize(
    ("overrides", "message", "remedies"),
    [
        (
            (*MULTISTEP, "OPTIM.LR_STEPS", "[5, 9999, 20000]"),
            "'OPTIM.LR_STEPS' is [5, 9999, 20000] on the command line and 'OPTIM.WARMUP_STEPS' is "
            "10000 by default; expected no step before the end of the warm-up; remove 5, 9999 "
            "from LR_STEPS, or set WARMUP_STEPS to at most 5",
            [("OPTIM.LR_STEPS", "[20000]"), ("OPTIM.WARMUP_STEPS", "5")],
        ),
        (
            (*MULTISTEP, "OPTIM.LR_STEPS", "[20000, 500000, 500001]"),
            "expected steps before the end of the run; remove 500000, 500001 from LR_STEPS, or "
            "set NUM_ITERATIONS to at least 500002",
            [("OPTIM.LR_STEPS", "[20000]"), ("OPTIM.NUM_ITERATIONS", "500002")],
        ),
        (
            (*MULTISTEP, "OPTIM.LR_STEPS", "[20000, 10000, 20000]"),
            "expected iterations in increasing order, each once: [10000, 20000]",
            [("OPTIM.LR_STEPS", "[10000, 20000]")],
        ),
        (
            ("OPTIM.NUM_ITERATIONS", "10"),
            "set WARMUP_STEPS to at most 9, or NUM_ITERATIONS to at least 10001",
            [("OPTIM.WARMUP_STEPS", "9"), ("OPTIM.NUM_ITERATIONS", "10001")],
        ),
        (
            ("OPTIM.BATCH_SIZE", "10", "OPTIM.ACCUMULATE", "4"),
            "expected a batch size that is divisible by the number of microbatches; set "
            "BATCH_SIZE to 8 or 12",
            [("OPTIM.BATCH_SIZE", "8"), ("OPTIM.BATCH_SIZE", "12")],
        ),
        (
            ("OPTIM.BATCH_SIZE", "3", "OPTIM.ACCUMULATE", "4"),
            "set BATCH_SIZE to 4",
            [("OPTIM.BATCH_SIZE", "4")],
        ),
        (
            ("MODEL.VISUAL.NAME", "torchvision::vit_h_14", "DATA.IMAGE_CROP_SIZE", "225"),
            "'DATA.IMAGE_CROP_SIZE' is 225 on the command line and 'MODEL.VISUAL.NAME' is "
            "'torchvision::vit_h_14' on the command line; expected a crop size that is divisible "
            "by the patch size of the network, 14 pixels; set IMAGE_CROP_SIZE to 238",
            [("DATA.IMAGE_CROP_SIZE", "238")],
        ),
        (
            (*MULTILABEL, "DATA.VOCAB_SIZE", "81", "DATA.FORMAT", "table"),
            "set DATA.FORMAT to coco or shards",
            [("DATA.FORMAT", "coco"), ("DATA.FORMAT", "shards")],
        ),
        (
            (*MULTILABEL, "DATA.VOCAB_SIZE", "1"),
            "set VOCAB_SIZE to at least 2 (81 for COCO)",
            [("DATA.VOCAB_SIZE", "2")],
        ),
        (
            ("DATA.MASKED_LM.REPLACE_PROBABILITY", "0.2"),
            "set REPLACE_PROBABILITY to at most 0.15",
            [("DATA.MASKED_LM.REPLACE_PROBABILITY", "0.15")],
        ),
        (
            ("MODEL.DECODER.BEAM_SIZE", "5", "DATA.VOCAB_SIZE", "4"),
            "set BEAM_SIZE to at most 4",
            [("MODEL.DECODER.BEAM_SIZE", "4")],
        ),
        (
            ("DATA.MAX_CAPTION_LENGTH", "12"),
            "set MAX_DECODING_STEPS to at most 12, or MAX_CAPTION_LENGTH to at least 30",
            [("MODEL.DECODER.MAX_DECODING_STEPS", "12"), ("DATA.MAX_CAPTION_LENGTH", "30")],
        ),
        (
            ("DATA.SUBSET_MANIFEST", "subset.json", "DATA.USE_PERCENTAGE", "50"),
            "set SUBSET_MANIFEST to null, or USE_PERCENTAGE to 100",
            [("DATA.SUBSET_MANIFEST", "null"), ("DATA.USE_PERCENTAGE", "100")],
        ),
        (
            ("DATA.IMAGE_SIZES", "[[0.5, 70]]"),
            "expected multiples of 32 pixels, the stride of the backbone; set 70 to 64",
            [("DATA.IMAGE_SIZES", "[[0.5, 64]]")],
        ),
        (
            ("DATA.IMAGE_SIZES", "[[0.5, 64], [0.5, 96]]"),
            "expected shares in increasing order, each once",
            [("DATA.IMAGE_SIZES", "[[0.5, 64], [0.6, 96]]")],
        ),
        (
            ("DATA.IMAGE_SIZES", "[[0.5, 256]]"),
            "set IMAGE_CROP_SIZE to at least 256",
            [("DATA.IMAGE_CROP_SIZE", "256")],
        ),
        (
            ("DATA.IMAGE_SIZES", "[[0.5, 64]]", "MODEL.VISUAL.NAME", "torchvision::vit_b_16"),
            "expected one size for a ViT",
            [("DATA.IMAGE_SIZES", "[]")],
        ),
        (
            ("DATA.USE_SINGLE_CAPTION", "true", "DATA.CAPTIONS_PER_IMAGE", "all"),
            "set USE_SINGLE_CAPTION to false, or CAPTIONS_PER_IMAGE to 1",
            [("DATA.USE_SINGLE_CAPTION", "false"), ("DATA.CAPTIONS_PER_IMAGE", "1")],
        ),
    ],
)
def test_the_remedy_of_a_conflict_works(load, overrides, message, remedies) -> None:
    assert message in problem(load, *overrides)
    for remedy in remedies:
        load(*overrides, *remedy)


def test_sources_are_read_and_dumped(load, tmp_path: Path) -> None:
    text = "[{FORMAT: table, ROOT: a, WEIGHT: 2, SEPARATOR: tab, COLUMNS: {IMAGE: file}}]"
    config = load("DATA.SOURCES", text)
    (source,) = config.data.all_sources
    assert (source.weight, source.separator, source.columns.image) == (2.0, "\t", "file")
    path = tmp_path / "dumped.yaml"
    path.write_text(settings.dump(config))
    assert settings.load(Config, path) == config


def test_what_only_wastes_is_allowed(load) -> None:
    load("OPTIM.LOOKAHEAD.STEPS", "1000000", "OPTIM.SGD_MOMENTUM", "0")
    load("MODEL.VISUAL.FROZEN", "true", "OPTIM.CNN_LR", "0", "OPTIM.LR", "0")
    load(*MULTILABEL, "DATA.VOCAB_SIZE", "81", "DATA.USE_SINGLE_CAPTION", "true")


def test_settings_of_an_earlier_run_are_read_though_a_new_run_would_be_refused(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    steps = [*MULTISTEP, "OPTIM.LR_STEPS", "[5, 600000]"]
    path.write_text("RANDOM_SEED: 0")
    earlier = settings.load(Config, path, steps)
    assert earlier.optim.lr_steps == (5, 600000)
    state = {"config": earlier.model_dump(mode="json", by_alias=True)}
    assert Checkpoint("a.pth", state).config == earlier
    path.write_text(settings.dump(earlier))
    with pytest.raises(UserError, match="2 problems"):
        load_config(path)


def test_batch_norm_needs_more_than_one_value_a_channel(load) -> None:
    tiny = ["OPTIM.BATCH_SIZE", "4", "DATA.IMAGE_CROP_SIZE", "32"]
    check_processes(load(*tiny), 2)
    with pytest.raises(
        UserError, match=r"set OPTIM\.BATCH_SIZE to 8, or DATA\.IMAGE_CROP_SIZE to 64"
    ):
        check_processes(load(*tiny), 4)
    with pytest.raises(UserError, match="batch norm needs more than one value"):
        check_processes(load(*tiny, "OPTIM.ACCUMULATE", "4", "SYNC_BN", "true"), 1)
    for remedy in (
        ("OPTIM.BATCH_SIZE", "8"),
        ("DATA.IMAGE_CROP_SIZE", "64"),
        ("SYNC_BN", "true"),
        ("MODEL.VISUAL.FROZEN", "true"),
        ("MODEL.VISUAL.NAME", "torchvision::convnext_tiny"),
    ):
        check_processes(load(*tiny, *remedy), 4)


def test_conflicts_of_all_sections_and_of_the_task_are_in_one_message(load) -> None:
    lines = problem(
        load,
        *("OPTIM.NUM_ITERATIONS", "1", "OPTIM.LR_STEPS", "[1]", "DATA.SOS_INDEX", "2"),
        *("DATA.UNK_INDEX", "0", "DATA.EOS_INDEX", "2", "DATA.MASK_INDEX", "3"),
        *("DATA.MAX_CAPTION_LENGTH", "12", "MODEL.TEXTUAL.NAME", "none", "DATA.VOCAB_SIZE", "3"),
    ).splitlines()
    assert lines[0] == "7 problems:"
    reasons = [line.partition("; expected ")[2] for line in lines[1:]]
    assert [reason[:20] for reason in reasons] == [
        "different ids, those",  # of the section DATA
        "a warm-up shorter th",  # of OPTIM
        "LR_STEPS only with m",
        "no more decoding ste",  # between sections
        "a textual head such ",  # of the task
        "a beam that is not l",
        "an id below the size",
    ]


def test_the_edges_of_the_checks_are_allowed(load) -> None:
    load("OPTIM.NUM_ITERATIONS", "10001")
    load("OPTIM.NUM_ITERATIONS", "1", "OPTIM.WARMUP_STEPS", "0")
    load("DATA.VOCAB_SIZE", "5")
    load("DATA.VOCAB_SIZE", "4", "MODEL.DECODER.NAME", "nucleus_sampling")
    multistep = ("OPTIM.LR_DECAY_NAME", "multistep", "OPTIM.LR_STEPS")
    load(*multistep, "[10000, 499999]")
    load(*multistep, "[1, 2]", "OPTIM.WARMUP_STEPS", "0", "OPTIM.NUM_ITERATIONS", "3")
    load("OPTIM.BATCH_SIZE", "6", "OPTIM.ACCUMULATE", "6")
    load("MODEL.VISUAL.NAME", "torchvision::vit_h_14", "DATA.IMAGE_CROP_SIZE", "42")
    load("DATA.SUBSET_MANIFEST", "runs/x/subset.json", "DATA.USE_PERCENTAGE", "100")
    load("DATA.MAX_CAPTION_LENGTH", "12", "MODEL.DECODER.MAX_DECODING_STEPS", "12")


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_batch_divides_by_the_processes_or_the_error_says_what_does(
    batch_size: int, processes: int
) -> None:
    config = Config(optim=Optim(batch_size=batch_size))
    if batch_size % processes == 0:
        check_processes(config, processes)
        return
    with pytest.raises(UserError, match=rf"'OPTIM.BATCH_SIZE' is {batch_size} ") as caught:
        check_processes(config, processes)
    for choice in str(caught.value).rpartition("choose ")[2].split(" or "):
        check_processes(Config(optim=Optim(batch_size=int(choice))), processes)


@pytest.mark.parametrize("vocab_size", ["2", "4"])
def test_a_few_categories_need_no_ids_of_tokens(load, vocab_size: str) -> None:
    task = ["MODEL.NAME", "multilabel_classification", "MODEL.TEXTUAL.NAME", "none"]
    assert load(*task, "DATA.VOCAB_SIZE", vocab_size).data.vocab_size == int(vocab_size)


# Values and bands of images


JITTER = "[random_resized_crop, color_jitter, normalize]"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("DATA.PIXEL_RANGE", "all"), "expected auto, percentiles, two numbers, the smaller first"),
        (("DATA.PIXEL_RANGE", "[9, 3]"), "expected auto, percentiles, two numbers"),
        (
            ("DATA.PIXEL_RANGE", "[[0, 9], [0, 8]]"),
            "expected one pair of numbers for all bands, or 3",
        ),
        (("DATA.PIXEL_PERCENTILES", "[1, 101]"), "expected two numbers from 0 to 100"),
        (("DATA.BANDS", "[0, 1, 2]"), "a number greater than or equal to 1"),
        (("DATA.DICOM_WINDOW", "[40, 0]"), "expected file, none, or a centre and a width"),
        (("DATA.DICOM_FRAME", "last"), "expected 'error', 'first' or 'middle'"),
        (
            ("DATA.BANDS", "[1, 2]", "DATA.IMAGE_TRANSFORM_TRAIN", JITTER),
            "expected no saturation and hue for 2 bands; remove color_jitter, or write",
        ),
        (
            (
                *("DATA.IMAGE_TRANSFORM_TRAIN", "[center_crop, \"normalize::{'mean': (0, 0)}\"]"),
                *("DATA.IMAGE_TRANSFORM_VAL", "[center_crop, \"normalize::{'mean': (0, 0)}\"]"),
            ),
            "expected a mean and a std of normalize for each of 3 bands",
        ),
    ],
)
def test_settings_that_no_image_can_have_are_refused(load, overrides, message) -> None:
    assert message in problem(load, *overrides)


def test_bands_need_statistics_unless_they_are_written(load) -> None:
    crops = ("DATA.IMAGE_TRANSFORM_TRAIN", "[center_crop, normalize]")
    assert load("DATA.BANDS", "[4, 3, 2, 8]", *crops).data.normalization is None
    assert load("DATA.BANDS", "[4, 3, 2]").data.normalization == Data().normalization
    written = "\"normalize::{'mean': (0.5, 0.4), 'std': (0.2, 0.1)}\""
    train, val = (f"[center_crop, {written}]" for _ in range(2))
    both = ("DATA.IMAGE_TRANSFORM_TRAIN", train, "DATA.IMAGE_TRANSFORM_VAL", val)
    found = load("DATA.BANDS", "[1, 2]", *both).data.normalization
    assert found == ((0.5, 0.4), (0.2, 0.1))
