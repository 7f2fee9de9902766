"""What `virtex sweep` checks, and the script it writes; the runs themselves: tests/end_to_end."""

import subprocess
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.config import loading as settings
from virtex.config.optim import Optim
from virtex.config.schema import Config
from virtex.experiments.sweep import plan


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A function of the arguments after `virtex sweep`; it writes a script, so nothing is run."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("OPTIM: {NUM_ITERATIONS: 3, WARMUP_STEPS: 1}")

    def sweep(*arguments, config="a.yaml"):
        given = ["--config", config, "--directory", "runs", "--slurm", "sweep.sh", *arguments]
        return main(["sweep", *given])

    return sweep


def grid(percentages="10 50", seeds="0 1"):
    return ["--percentages", *percentages.split(), "--seeds", *seeds.split()]


def script():
    return Path("sweep.sh").read_text()


def test_the_script_lists_every_percentage_with_every_seed(sweep, capsys):
    assert sweep(*grid("10 2.50 100.0", "3 0"), "--", "--cpu-workers", "2") == 0
    assert "#SBATCH --array=0-5\n" in script()
    assert "percentages=(10 2.5 100 10 2.5 100)\nseeds=(3 3 3 0 0 0)\n" in script()
    assert "--cpu-workers 2" in script()
    assert subprocess.run(["bash", "-n", "sweep.sh"], check=False).returncode == 0
    printed = capsys.readouterr().out
    assert "a job array of 6 tasks" in printed
    assert "sbatch sweep.sh" in printed
    assert [path.name for path in Path("runs").iterdir()] == ["sweep.yaml"]


def test_the_shared_settings_are_resolved_once(sweep):
    assert sweep(*grid("10"), "--config-override", "OPTIM.LR", "1e-4") == 0
    shared = settings.load(Config, Path("runs/sweep.yaml"))
    assert shared.optim.num_iterations == 3
    assert shared.optim.lr == 1e-4


def test_runs_of_several_processes_on_one_machine_do_not_share_a_port(sweep):
    assert sweep(*grid()) == 0
    assert "--dist-url" not in script()
    Path("sweep.sh").unlink()
    assert sweep(*grid(), "--", "--num-gpus-per-machine", "2") == 0
    last = script().splitlines()[-1].split("-- ", 1)[1]
    port = ["bash", "-c", f"SLURM_JOB_ID=40007; echo {last}"]
    told = subprocess.run(port, check=True, capture_output=True, text=True).stdout
    assert told == "--num-gpus-per-machine 2 --dist-url tcp://127.0.0.1:20007\n"


def test_a_script_without_a_task_says_how_it_is_started(sweep):
    assert sweep(*grid()) == 0
    ended = subprocess.run(
        ["bash", "sweep.sh"], check=False, capture_output=True, text=True, env={"PATH": "/bin"}
    )
    assert ended.returncode
    assert "submit this script with sbatch" in ended.stderr


def test_a_sweep_may_grow_and_its_script_is_not_overwritten(sweep, capsys):
    assert sweep(*grid()) == 0
    assert sweep(*grid()) == 0
    before = script()
    assert sweep(*grid(seeds="0 1 2")) == 2
    assert "--slurm sweep.sh exists with other contents" in capsys.readouterr().err
    assert script() == before
    Path("sweep.sh").unlink()
    assert sweep(*grid("5 50", "1 2")) == 0


def test_sweeps_of_other_settings_are_not_mixed(sweep, capsys):
    assert sweep(*grid()) == 0
    assert sweep(*grid(), "--config-override", "OPTIM.LR", "0.5", "AMP", "false") == 2
    message = capsys.readouterr().err
    assert "runs holds a sweep with other settings" in message
    assert "AMP was True, is False; OPTIM.LR was 0.001, is 0.5;" in message


def test_a_directory_of_a_run_is_refused(sweep, capsys):
    Path("runs").mkdir()
    Path("runs/config.yaml").write_text(settings.dump(Config()))
    assert sweep(*grid()) == 2
    assert "--directory runs holds a run" in capsys.readouterr().err


def test_a_file_in_place_of_the_directory_is_refused(sweep, capsys):
    Path("runs").touch()
    assert sweep(*grid()) == 2
    assert "--directory runs is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (grid("10 50 10.0 50"), "--percentages 10, 50: give each value only once"),
        (grid(seeds="0 1 00"), "--seeds 0: give each value only once"),
        (grid(seeds="4294967296"), "'RANDOM_SEED' is 4294967296 on the command line; expected"),
        ([*grid(), "--config-override", "OPTIM.LR", "-1"], "'OPTIM.LR' is -1 on the command line"),
        ([*grid(), "--config-override", "RANDOM_SEED", "1"], "RANDOM_SEED, which --seeds sets"),
        (
            [*grid(), "--config-override", "DATA.USE_PERCENTAGE", "1"],
            "--config-override sets DATA.USE_PERCENTAGE, which --percentages sets too; remove",
        ),
        (
            # The first of the runs would be accepted.
            [*grid("100 50"), "--config-override", "DATA.SUBSET_MANIFEST", "subset.json"],
            "'DATA.USE_PERCENTAGE' is 50 on the command line; expected only one of them",
        ),
        (
            [*grid(), "--", "--serialization-dir", "x"],
            "--serialization-dir after -- is not allowed in a sweep",
        ),
        (
            [*grid(), "--", "--resume-from", "latest"],
            "--resume-from after -- is not allowed in a sweep",
        ),
        ([*grid(), "--", "--init-from", "x.pth"], "--init-from after -- is not allowed in a sweep"),
        (
            [*grid(), "--", "--config-over", "AMP", "false"],
            "--config-override after -- is not allowed in a sweep",
        ),
        ([*grid(), "--", "--config", "b.yaml"], "--config after -- is not allowed in a sweep"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(sweep, capsys, arguments, message):
    assert sweep(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("virtex sweep: error: ")
    assert message in error
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[(grid(p), "is not a number above 0 and at most 100") for p in ("0", "101", "nan", "x")],
        (grid(seeds="1.5"), "'1.5' is not an integer of at least 0"),
        ([*grid(), "--", "--cpu-workers", "many"], "virtex pretrain: error: argument --cpu-worker"),
        ([*grid(), "--", "--workers", "2"], "virtex pretrain: error: unrecognized arguments"),
        (["--seeds", "0"], "--percentages"),
    ],
)
def test_a_wrong_word_is_told_with_the_usage(sweep, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        sweep(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_run_by_epochs_is_finished_when_its_own_number_of_iterations_is_done(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("OPTIM: {NUM_EPOCHS: 2, WARMUP_STEPS: 1}")
    grid = {"percentages": [50.0], "seeds": [0], "checkpoint_every": 5}
    _, [run] = plan(config, [], tmp_path, **grid)
    assert not run.finished
    run.directory.mkdir()
    optim = Optim(num_iterations=9, warmup_steps=1)  # as the run has found
    (run.directory / "config.yaml").write_text(settings.dump(Config(optim=optim)))
    (run.directory / "checkpoint_5.pth").touch()
    assert not run.finished
    (run.directory / "checkpoint_9.pth").touch()
    assert run.finished


def test_a_sweep_of_an_earlier_version_goes_on(sweep):
    assert sweep(*grid()) == 0
    shared = Path("runs/sweep.yaml")
    text = shared.read_text().replace("FEATURE_SIZE: null", "FEATURE_SIZE: 2048")
    shared.write_text(text.replace("VOCAB_SIZE: null", "VOCAB_SIZE: 10000"))
    assert sweep(*grid()) == 0
    assert settings.load(Config, shared).data.vocab_size == 10000
