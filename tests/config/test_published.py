"""Every YAML of the package resolves, and the published names hold the published models."""

import json
import math
from pathlib import Path

import pytest

from virtex.build.model import load_config
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.experiments.published import published_figure
from virtex.tasks import find_task

CONFIGS = Path(__file__).parents[1].parent / "src" / "virtex" / "configs"
PARITY = Path(__file__).parents[1] / "parity"
BASE = "_base_bicaptioning_R_50_L1_H1024.yaml"
MODELS = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
PUBLISHED = json.loads((PARITY / "configs.json").read_text())


def test_all_published_models_are_covered() -> None:
    # The base, 5 tasks, 4 widths, 4 depths and 3 backbones.
    assert len(PUBLISHED) == 17


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_name_resolves_to_the_published_model(name: str) -> None:
    model = settings.load(Config, CONFIGS / name).model
    figures = PUBLISHED[name]
    assert model.name == figures["MODEL.NAME"]
    assert model.visual.name == figures["MODEL.VISUAL.NAME"]
    assert model.textual.name == figures["MODEL.TEXTUAL.NAME"]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_name_differs_from_the_base_in_its_model_alone(name: str) -> None:
    config = settings.load(Config, CONFIGS / name)
    base = settings.load(Config, CONFIGS / BASE)
    if find_task(config.model.name).head == "linear":
        # There is no transformer to spare from weight decay.
        assert config.optim.no_decay == "none"
        optim = config.optim.model_copy(update={"no_decay": base.optim.no_decay})
        config = config.model_copy(update={"optim": optim})
    if find_task(config.model.name).labels == "categories":
        assert config.data.vocab_size == 81
        data = config.data.model_copy(update={"vocab_size": base.data.vocab_size})
        config = config.model_copy(update={"data": data})
    assert config.model_copy(update={"model": base.model}) == base


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_figures_are_found_by_the_settings_alone(name: str) -> None:
    here = ["DATA.ROOT", "elsewhere/coco", "RANDOM_SEED", "7", "AMP", "false"]
    flat = settings.flat(settings.load(Config, CONFIGS / name, here))
    begin = f"| `{name.removesuffix('.yaml')}`"
    row = next(line for line in MODELS.splitlines() if line.startswith(begin))
    voc07, imagenet = row.strip("| ").split(" | ")[-2:]
    assert published_figure(flat, "voc07/mAP", "data/VOC2007") == float(voc07)
    assert published_figure(flat, "linear/top1", "data/imagenet") == float(imagenet)
    assert published_figure(flat, "linear/top1", "data/VOC2007") is None
    assert published_figure(flat | {"OPTIM.LR": 0.1}, "voc07/mAP", "VOC2007") is None


def test_the_base_spells_out_the_defaults_and_its_width() -> None:
    config = settings.load(
        Config, CONFIGS / BASE, ["MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H2048_A32_F8192"]
    )
    assert config == Config()


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_every_config_loads_and_names_the_schema_for_editors(path: Path) -> None:
    load_config(path)
    [schema] = [part for part in path.read_text().splitlines()[0].split() if part.startswith("$")]
    assert (path.parent / schema.removeprefix("$schema=")).resolve() == CONFIGS / "schema.json"


@pytest.mark.parametrize(
    ("name", "images", "classes", "epochs"),
    [("imagenet", 1_281_167, 1000, 100), ("inaturalist", 437_513, 8142, 100)],
)
def test_the_published_recipes_of_fine_tuning(
    name: str, images: int, classes: int, epochs: int
) -> None:
    config = load_config(CONFIGS / "downstream" / f"{name}_clf.yaml")
    epoch = math.ceil(images / config.optim.batch_size)
    assert config.optim.num_iterations == epochs * epoch
    assert config.optim.lr_steps == {"imagenet": (), "inaturalist": (70 * epoch, 90 * epoch)}[name]
    assert config.data.vocab_size == classes
    crop, *_ = config.data.transforms_train
    assert crop.arguments["scale"] == (0.08, 1.0)
    assert not config.optim.lookahead.use
    frozen = {"imagenet": (True, 0.3, 0.0), "inaturalist": (False, 0.025, 1e-4)}[name]
    assert (config.model.visual.frozen, config.optim.lr, config.optim.weight_decay) == frozen


@pytest.mark.parametrize(
    "case",
    [
        *("bicaptioning_postnorm", "captioning_prenorm", "decode_bicaptioning_sharp"),
        *("masked_lm", "multilabel_classification", "token_classification"),
    ],
)
def test_the_configs_of_the_parity_cases_load(case: str) -> None:
    recorded = json.loads((PARITY / f"{case}.json").read_text())
    overrides = [str(item) for item in recorded["config_override"]]
    config = load_config(CONFIGS / recorded["config"], overrides)
    assert config.data.vocab_size == recorded["config_override"][1]
    assert config.amp is False


def test_the_schema_is_current() -> None:
    # After a change: virtex config --json-schema > src/virtex/configs/schema.json
    assert json.loads((CONFIGS / "schema.json").read_text()) == settings.json_schema(Config)
