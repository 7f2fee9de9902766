"""`virtex compare` on directories of runs, written as runs write them."""

import json
import math
import re
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.cli import main
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.data import subset
from virtex.data.subset import SubsetManifest
from virtex.experiments.comparison import Statistic, short_names
from virtex.experiments.table import statistic_texts
from virtex.training.logger import RunLogger

SHORT = ("OPTIM.NUM_ITERATIONS", "20", "OPTIM.WARMUP_STEPS", "1")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes the directory of a run under a name: overrides, losses, results."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("AMP: false")

    def write(name, *overrides, iteration=20, results=None, **losses):
        directory = Path(name)
        directory.mkdir(parents=True)
        config = settings.load(Config, Path("a.yaml"), [*SHORT, *overrides])
        (directory / "config.yaml").write_text(settings.dump(config))
        with closing(RunLogger(directory, rank=0, first=1)) as logger:
            logger.log_scalars(1, {"train/loss": 99.0, "val/loss": 99.0})
            logger.log_scalars(iteration, {"train/loss": 0.5})
            total = {"val/loss": sum(losses.values())} if losses else {}
            logger.log_scalars(iteration, total | {f"val/{k}": v for k, v in losses.items()})
        if results is not None:
            (directory / "report").mkdir()
            (directory / "report" / "results.json").write_text(json.dumps(results))
        return name

    return write


@pytest.fixture
def table(capsys):
    """A function of the arguments: the lines printed, and the warnings."""

    def table(*arguments):
        assert main(["compare", *arguments]) == 0
        captured = capsys.readouterr()
        return captured.out.splitlines(), captured.err

    return table


@pytest.fixture
def groups(capsys):
    """A function of the arguments: what is printed with --json."""

    def groups(*arguments):
        assert main(["compare", "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return groups


def seeds(write, name, *overrides, values=(1.0, 2.0, 6.0), **more):
    """Runs of some losses, each of a seed of its own."""
    return [
        write(f"{name}_{seed}", "RANDOM_SEED", str(seed), *overrides, forward=value, **more)
        for seed, value in enumerate(values)
    ]


def test_runs_that_differ_in_the_seed_alone_are_a_group(write, table):
    tenth = seeds(write, "tenth", "DATA.USE_PERCENTAGE", "10")
    half = seeds(write, "half", "DATA.USE_PERCENTAGE", "50", values=(0.25,))
    assert table(*half, *tenth) == (
        [
            "USE_PERCENTAGE  runs  iterations        val/loss",
            # By hand: (1 + 2 + 6) / 3 and sqrt((4 + 1 + 9) / 2).
            "            10     3          20   3.000 ± 2.646",
            "            50     1          20  0.2500 ± —",
        ],
        "",
    )


def test_the_order_of_the_runs_changes_nothing(write, table):
    runs = seeds(write, "a", "OPTIM.LR", "1e-2") + seeds(write, "b", "OPTIM.LR", "2e-3")
    lines, _ = table(*runs)
    assert [line.split()[0] for line in lines] == ["LR", "0.002", "0.01"]
    assert table(*reversed(runs))[0] == lines


def test_settings_that_follow_from_others_are_named_without_a_column(write, table):
    runs = [
        write("a", "OPTIM.LR", "1e-2", "OPTIM.LR_DECAY_NAME", "none", forward=1.0),
        write("b", "OPTIM.LR", "2e-3", "OPTIM.LR_DECAY_NAME", "linear", forward=2.0),
        write("c", "OPTIM.LR", "2e-3", "OPTIM.LR_DECAY_NAME", "cosine", forward=3.0),
    ]
    lines, _ = table(*runs)
    assert lines[0].split()[:2] == ["LR_DECAY_NAME", "runs"]
    assert lines[-2:] == ["", "these runs also differ in OPTIM.LR"]


def test_settings_that_only_together_tell_groups_apart_all_have_a_column(write, table):
    runs = [
        write(f"{lr}_{decay}", "OPTIM.LR", lr, "OPTIM.WEIGHT_DECAY", decay, forward=1.0)
        for lr in ("1e-2", "2e-3")
        for decay in ("0.1", "0.2")
    ]
    lines, _ = table(*runs)
    assert lines[0].split()[:2] == ["WEIGHT_DECAY", "LR"]
    assert len(lines) == 5


def test_one_group_has_no_settings_to_tell(write, table):
    lines, _ = table(*seeds(write, "a"))
    assert lines == ["runs  iterations       val/loss", "   3          20  3.000 ± 2.646"]


def test_components_results_and_runs_of_other_tasks_stand_beside_each_other(write, table):
    both = write("both", forward=2.0, backward=1.0, results={"true": 0.79, "scenes": 100})
    one = write("one", "MODEL.NAME", "captioning", forward=1.5)
    lines, _ = table(both, one)
    names = ["MODEL.NAME", "runs", "iterations", "val/loss", "val/forward", "val/backward"]
    assert lines[0].split() == [*names, "report/true", "report/scenes"]
    assert re.sub(" +", " ", lines[1]).strip() == (
        "captioning 1 20 1.500 ± — 1.500 ± —"  # captioning has neither the rest nor results
    )
    assert re.sub(" +", " ", lines[2]) == (
        "virtex 1 20 3.000 ± — 2.000 ± — 1.000 ± — 0.7900 ± — 100 ± —"
    )


def test_the_only_component_and_a_crowd_of_them_are_left_out(write, groups):
    crowd = {f"part{number}": 1.0 for number in range(5)}
    assert list(groups(write("a", forward=1.0))[0]["metrics"]) == ["val/loss"]
    assert list(groups(write("b", **crowd))[0]["metrics"]) == ["val/loss"]


def test_results_are_named_after_their_folder(write, groups):
    name = write("a", results={"true": 0.5, "model": "x", "fine": True, "of": [1]})
    Path("a/results.json").write_text('{"top1": 61.5}')
    assert list(groups(name)[0]["metrics"]) == ["val/loss", "top1", "report/true"]


def test_records_of_evaluate_are_named_after_their_protocol(write, groups):
    """Of several checkpoints of a run, the latest counts."""
    name = write("a")
    records = [
        {"protocol": "linear", "metric": "top1", "value": 100.0 - iteration, "iteration": iteration}
        for iteration in (50, 20)
    ]
    Path("a/results.json").write_text(json.dumps(records))
    found = groups(name)[0]["metrics"]
    assert list(found) == ["val/loss", "linear/top1"]
    assert "50.0" in json.dumps(found["linear/top1"])


def record(value, root="/data/x", protocol="linear", metric="top1", iteration=20):
    names = {"protocol": protocol, "metric": metric, "value": value, "iteration": iteration}
    return names | {"data": f"hash of {root}", "root": root}


def test_results_on_several_data_sets_are_told_apart_in_all_runs(write, groups):
    first, second = write("a"), write("b", "RANDOM_SEED", "1")
    records = [record(60.0, "/data/birds"), record(20.0, "/data/cars")]
    Path("a/results.json").write_text(json.dumps(records))
    Path("b/results.json").write_text(json.dumps([record(64.0, "/data/birds")]))
    found = groups(first, second)[0]["metrics"]
    assert list(found) == ["val/loss", "linear/top1@birds", "linear/top1@cars"]
    assert found["linear/top1@birds"]["values"] == [60.0, 64.0]
    assert found["linear/top1@cars"]["values"] == [20.0]
    assert list(groups(second)[0]["metrics"]) == ["val/loss", "linear/top1"]


PAPER = ("OPTIM.NUM_ITERATIONS", "500000", "OPTIM.WARMUP_STEPS", "10000")


def test_published_figures_stand_beside_results_of_the_same_settings_and_data(write, table):
    runs = [write("a", *PAPER), write("b", *PAPER, "MODEL.NAME", "captioning")]
    for name, value in zip(runs, (88.1, 88.3), strict=True):
        voc = record(value, "/data/VOCdevkit/VOC2007", "voc07", "mAP")
        Path(name, "results.json").write_text(json.dumps([voc, record(41.0, "/data/birds")]))
    lines, _ = table(*runs)
    assert lines[0].split()[3:] == ["val/loss", "voc07/mAP", "voc07/mAP", "(published)",
                                    "linear/top1"]  # fmt: skip
    assert [line.split()[-4] for line in lines[1:3]] == ["88.6", "88.7"]
    assert lines[3].startswith("published figures are those of the paper's own runs")


def test_published_figures_are_not_shown_for_other_settings(write, groups):
    name = write("a", *PAPER, "OPTIM.BATCH_SIZE", "512")
    Path(name, "results.json").write_text(json.dumps([record(88, "/voc07", "voc07", "mAP")]))
    assert "published" not in groups(name)[0]["metrics"]["voc07/mAP"]


def test_the_metrics_asked_for_are_shown_in_their_order(write, table):
    name = write("a", forward=1.0, backward=2.0, results={"true": 0.5})
    lines, _ = table(name, "--metric", "train/loss", "report/true", "--metric", "val/backward")
    assert lines[0].split()[2:] == ["train/loss", "report/true", "val/backward"]
    assert lines[1].split()[2::3] == ["0.5000", "0.5000", "2.000"]


def test_a_metric_that_only_some_runs_have_says_of_how_many(write, table):
    some = [write("a", "RANDOM_SEED", "1", results={"true": 0.5})]
    some += [write("b", "RANDOM_SEED", "2", results={"true": 0.7})]
    lines, _ = table(*some, write("c"), "--metric", "report/true")
    assert lines[1].endswith("0.6000 ± 0.1414 (of 2)")


def test_an_unfinished_run_is_marked_and_warned_of(write, table):
    runs = [write("a", forward=1.0), write("b", "RANDOM_SEED", "1", iteration=7, forward=2.0)]
    runs += [write("c", "OPTIM.LR", "0.5", iteration=9, forward=2.0)]
    lines, warnings = table(*runs)
    assert "7–20 of 20" in lines[1]
    assert " 9 of 20" in lines[2]
    assert (
        "virtex compare: warning: b is unfinished: its metrics are those of iteration 7 of 20"
        in warnings
    )
    assert "warning: c is unfinished: its metrics are those of iteration 9 of 20" in warnings
    assert "warning: a " not in warnings


def test_a_run_that_has_just_begun_has_no_numbers(write, table):
    Path(write("a"), "scalars.jsonl").unlink()
    lines, warnings = table("a")
    assert lines == ["runs  iterations", "   1     0 of 20"]
    assert "a is unfinished: its metrics are those of iteration 0 of 20" in warnings


def test_lines_that_cannot_be_read_are_warned_of(write, table):
    with Path(write("a", forward=1.0), "scalars.jsonl").open("a") as file:
        file.write('{"iteration": 20, "val/lo\n')
    assert "a/scalars.jsonl: line 4 cannot be read" in table("a")[1]


def test_two_runs_of_one_seed_are_warned_of(write, table):
    lines, warnings = table(write("a", forward=1.0), write("b", forward=1.0))
    assert "a, b have the same settings and the same seed, 0" in warnings
    assert lines[1].split()[0] == "2"


def test_runs_with_a_manifest_each_are_grouped_by_its_size(write, table):
    runs = seeds(write, "few", "DATA.SUBSET_MANIFEST", "few.json")
    other = write("few_9", "RANDOM_SEED", "9", "DATA.SUBSET_MANIFEST", "other.json", forward=3.0)
    for number, name in enumerate([*runs, other]):
        subset.write_or_remove(Path(name, "subset.json"), SubsetManifest.from_ids((number, 9), 10))
    lines, _ = table(*runs, other, write("all", forward=1.0))
    assert [re.split("  +", line)[:2] for line in lines] == [
        ["SUBSET_MANIFEST", "runs"],
        ["2 images", "4"],
        ["—", "1"],
    ]


def test_many_metrics_stand_in_lines_that_fit(write, table):
    many = {f"a_metric_of_a_long_name_{number}": number + 1.5 for number in range(9)}
    runs = [
        write(f"p{percentage}", "DATA.USE_PERCENTAGE", str(percentage), results=many)
        for percentage in range(10, 91, 10)
    ]
    lines, _ = table(*runs)
    assert max(map(len, lines)) <= 100
    [_, *percentages] = lines[0].split()
    for part in "\n".join(lines).split("\n\n")[1:]:
        percentages += part.split("\n")[0].split()[1:]
    assert percentages == [str(p) for p in range(10, 91, 10)]
    for name, value in many.items():
        cells = [line for line in lines if line.startswith(f"report/{name} ")]
        assert sum(line.count(f" {value:.3f} ") for line in cells) == 9


def test_json_has_the_values_in_full(write, groups):
    tenth = seeds(write, "a", "DATA.USE_PERCENTAGE", "10", values=(1 / 3, 2 / 3))
    whole = seeds(write, "b", values=(math.nan,))
    first, second = groups(*tenth, *whole)
    assert first == {
        "settings": {"DATA.USE_PERCENTAGE": 10.0},
        "runs": tenth,
        "seeds": [0, 1],
        "iteration": [20, 20],
        "iterations": 20,
        "metrics": {
            "val/loss": {"mean": 0.5, "deviation": math.sqrt(1 / 18), "values": [1 / 3, 2 / 3]}
        },
    }
    # JSON has no NaN.
    assert second["metrics"]["val/loss"] == {"mean": None, "deviation": None, "values": [None]}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((2.34567,), "2.346 ± —"),
        ((2.0, 3.0), "2.500 ± 0.707"),
        ((0.0, 0.0), "0.000 ± 0.000"),
        ((-12.5, -13.5), "-13.00 ± 0.71"),
        ((0.00123456, 0.00123456), "0.001235 ± 0.000000"),
        ((5.0, 5.0002), "5.000 ± 0.0001"),
        ((1e-7, 2e-7), "1.500e-07 ± 7.1e-08"),
        ((123456.7, 123456.7), "123457 ± 0"),
        ((1.5e6,), "1.500e+06 ± —"),
        ((118287, 118287), "118287 ± 0"),
        ((1, 2), "1.500 ± 0.707"),
        ((math.inf, 1.0), "nan ± nan"),
    ],
)
def test_numbers_have_four_digits_and_deviations_as_many_decimals(write, table, values, text):
    runs = [
        write(f"{seed}", "RANDOM_SEED", str(seed), results={"x": value})
        for seed, value in enumerate(values)
    ]
    lines, _ = table(*runs)
    assert re.split("  +", lines[1])[-1] == text


@given(st.floats(-1e300, 1e300), st.floats(0, 1e300))
def test_every_number_reads_back_to_four_digits(mean, deviation):
    text, deviation_text = statistic_texts(Statistic((mean, mean), mean, deviation))
    assert math.isclose(float(text), mean, rel_tol=6e-4, abs_tol=5e-324)
    assert (float(deviation_text) == 0) == (deviation == 0)


def test_settings_are_called_by_the_shortest_name_that_no_other_has():
    keys = list(settings.flat(Config()))
    names = short_names(keys, keys)
    assert len(set(names.values())) == len(keys)
    assert names["OPTIM.LR"] == "LR"
    assert names["MODEL.NAME"] == "MODEL.NAME"
    assert names["MODEL.VISUAL.NAME"] == "VISUAL.NAME"
    assert names["AMP"] == "AMP"


def damage(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none is not a run of `virtex pretrain`: it does not exist"),
        (["a.yaml"], "a.yaml is not a run of `virtex pretrain`: it is a file"),
        (["empty"], "empty is not a run of `virtex pretrain`: it holds no config.yaml"),
        (["sweep"], "give sweep/*/ instead"),
        (["a", "sweep/../a"], "/a is given more than once; name every run once"),
        (["a", "--metric", "val/los"], "--metric val/los: no run has this metric; did you mean"),
        (["a", "--metric", "x"], "no run has this metric; their metrics: train/loss, val/loss"),
        (["new", "--metric", "x"], "their metrics: none yet"),
        (["damaged"], "damaged/report/results.json is not valid JSON"),
        (["listed"], "listed/report/results.json does not hold a JSON object"),
        (["other"], "unknown setting 'SPEED' in other/config.yaml"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(write, capsys, arguments, message):
    for name in ("a", "sweep/run", "new", "damaged", "listed", "other"):
        write(name, forward=1.0)
    Path("empty").mkdir()
    Path("new/scalars.jsonl").unlink()
    damage("damaged/report/results.json", "{")
    damage("listed/report/results.json", "[1]")
    damage("other/config.yaml", "SPEED: 3")
    assert main(["compare", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("virtex compare: error: ")
    assert message in error
