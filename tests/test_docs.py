"""What the pages say that the code, the tests or the recorded figures say too."""

import argparse
import ast
import json
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tools.pages import model_costs, scaling
from tools.pages import settings as settings_page

from virtex.commands import pretrain
from virtex.config import loading as settings
from virtex.config.earlier_names import KEYS
from virtex.config.schema import Config

REPOSITORY = Path(__file__).parent.parent
PAGES = [*REPOSITORY.glob("*.md"), *sorted((REPOSITORY / "docs").rglob("*.md"))]
PUBLISHED = json.loads((REPOSITORY / "tests" / "parity" / "configs.json").read_text())
MODELS = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
SCALING = scaling.PAGE.read_text(encoding="utf-8")
FAILURES = (REPOSITORY / "docs" / "failures.md").read_text(encoding="utf-8")
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")

COMING = (REPOSITORY / "docs" / "coming-from-1.4.md").read_text(encoding="utf-8")


def rows(page):
    """The cells of every row of a page's tables, without headers and the rules below them."""
    lines = page.splitlines()
    body = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not following.startswith("|---")
    ]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in body]


def functions(path):
    """The names of the functions in a file of the repository; none where there is no file."""
    source = REPOSITORY / path
    tree = ast.parse(source.read_text(encoding="utf-8") if source.exists() else "")
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_architecture_page_has_every_room():
    package = REPOSITORY / "src" / "virtex"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    rooms |= {path.stem for path in package.glob("*.py")}
    assert rooms - set(re.findall(r"`([a-z_]+)`", ARCHITECTURE)) == set()


def test_the_models_page_has_every_published_config_with_its_parameters():
    said = {cells[0].strip("`") + ".yaml": cells[1] for cells in rows(MODELS)}
    assert said == {
        name: f"{figures['parameters'] / 1e6:.1f}" for name, figures in PUBLISHED.items()
    }


def test_the_models_page_has_a_command_for_every_published_config():
    assert re.findall(r"--config configs/(\S+)", MODELS) == sorted(PUBLISHED)
    for line in re.findall(r"^python scripts/pretrain_virtex.py .*$", MODELS, re.MULTILINE):
        assert line in {model_costs.command(name) for name in PUBLISHED}


def test_one_model_under_several_names_has_one_line_of_figures():
    """As the paper's tables have it; equal digests of all shapes are one model."""
    cells = {cells[0].strip("`") + ".yaml": cells[1:] for cells in rows(MODELS)}
    figures = {}
    for name, recorded in PUBLISHED.items():
        digest = recorded["sha256_of_sorted_state_dict_name_and_shape_lines"]
        model = recorded["MODEL.NAME"], digest
        assert figures.setdefault(model, cells[name]) == cells[name]
    assert len(figures) == 13


@pytest.mark.parametrize(
    "name",
    [
        "_base_bicaptioning_R_50_L1_H1024.yaml",
        "task_ablations/masked_lm_R_50_L1_H2048.yaml",
        "task_ablations/token_classification_R_50.yaml",
    ],
)
def test_the_models_page_is_what_its_script_counts(name):
    config = settings.load(Config, model_costs.CONFIGS / name)
    assert model_costs.row(name, config) in MODELS.splitlines()


def test_operations_of_a_layer_by_hand():
    """Two layers less one, in both directions: projections, products of attention, feed-forward."""
    one, two = (
        model_costs.costs(
            settings.load(
                Config,
                model_costs.CONFIGS / f"depth_ablations/bicaptioning_R_50_L{layers}_H1024.yaml",
            )
        )
        for layers in (1, 2)
    )
    tokens, grid, width = model_costs.TOKENS - 1, 49, 1024
    self_attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    over_grid = 2 * tokens * width**2 + 2 * grid * width**2 + 2 * tokens * grid * width
    feedforward = 8 * tokens * width**2
    products = self_attention + over_grid + feedforward
    assert two.forward - one.forward == 2 * 2 * products
    assert two.backward - one.backward == 2 * (two.forward - one.forward)


def test_every_failure_is_shown_by_tests_that_exist():
    table = rows(FAILURES)
    assert table
    missing = []
    for failure, _, shown_by in table:
        tests = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", shown_by)
        assert tests, failure
        assert shown_by == ", ".join(f"`{path}::{name}`" for path, name in tests)
        missing += [f"{path}::{name}" for path, name in tests if name not in functions(path)]
    assert missing == []


def test_the_scaling_page_is_what_its_script_prints():
    tables = scaling.blocks(scaling.measured(), scaling.Assumptions())
    assert scaling.with_blocks(SCALING, tables) == SCALING
    assert len(tables) == SCALING.count("<!-- begin: ")
    assert all(table in SCALING for table in tables.values())


def test_the_sum_of_gradients_by_hand():
    """Four in a ring, 100 MB at 10 GB/s: 6/4 of the bytes, and 6 hops for each of 4 buckets."""
    assumed = scaling.Assumptions(link_efficiency=1.0, hop_us=10.0)
    assert scaling.ring_ms(100e6, 4, 10.0, assumed) == pytest.approx(15 + 4 * 6 * 0.01)
    assert scaling.ring_ms(100e6, 1, 10.0, assumed) == 0


def test_no_interval_between_saves_loses_less_than_the_best():
    blocked, mtbf = 3.0, 9e4
    best = scaling.best_interval(blocked, mtbf)
    least = scaling.lost_share(best, blocked, mtbf, restart=60)
    for other in (0.5 * best, 0.99 * best, 1.01 * best, 2 * best):
        assert scaling.lost_share(other, blocked, mtbf, restart=60) > least


def test_what_a_step_waits_for_is_named():
    known = replace(scaling.measured(), gflop_per_image=10.0, loader_images_per_core=100.0)
    assumed = scaling.Assumptions(peak_tflops=10, utilisation=1, step_floor_ms=10, hop_us=0)
    assert scaling.step(1, 256, known, assumed).limit == "compute"
    assert scaling.step(1, 256, known, assumed).step == pytest.approx(256)
    assert scaling.step(1, 8, known, assumed).limit == "launching kernels"
    slow = replace(assumed, node_link_gbit_s=1)
    assert scaling.step(16, 256, known, slow).limit == "network"
    # 1,000 images/s a GPU need ten cores of it; with two, a fifth of them come.
    starved = scaling.step(1, 256, known, replace(assumed, cores_per_gpu=2))
    assert starved.limit == "loader"
    assert starved.images_per_second == pytest.approx(200)


def renamed(page):
    """The rows of the page about the published system: names, and what they are now."""
    return [
        (re.findall(r"`([^`]+)`", cells[0]), cells[1]) for cells in rows(page) if len(cells) >= 2
    ]


def test_settings_that_the_page_calls_the_same_exist_and_the_others_do_not():
    known = settings.flat(Config())
    keys = {
        key: now
        for names, now in renamed(COMING)
        for key in names
        if re.fullmatch(r"[A-Z]\w*(\.[A-Z_0-9]+)+|AMP|RANDOM_SEED|CUDNN_\w+|FP16_OPT", key)
    }
    assert {key for key, now in keys.items() if now == "same"} == keys.keys() & known.keys()
    assert set(KEYS) == keys.keys() - known.keys()


def test_published_flags_that_the_page_calls_the_same_exist():
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    table = COMING[COMING.index("| `pretrain_virtex.py`") : COMING.index("| `build_vocabulary.py`")]
    flags = {flag for names, _ in renamed(table) for flag in names if flag.startswith("--")}
    assert len(flags) == 11
    assert flags <= parser._option_string_actions.keys()


def test_functions_that_the_page_names_exist():
    cells = [cells[1] for cells in rows(COMING[COMING.index("## Functions") :])]
    named = re.findall(r"`(virtex\.[\w.]+)", "\n".join(cells))
    assert len(named) >= 15
    for name in named:
        pkgutil.resolve_name(name)


def test_the_settings_page_is_that_of_the_code():
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page()


def test_the_book_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    words = ("-q", "-W", "--keep-going", "-b", "html", REPOSITORY / "docs", tmp_path)
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "virtex.training.interface.pretrain" in (tmp_path / "reference.html").read_text()
