import dataclasses
import shutil
import socket
from pathlib import Path

import pytest
import torch

from virtex.distributed import preflight
from virtex.distributed.preflight import Facts, Needs, report, verdicts
from virtex.distributed.shared_memory import SHARED_MEMORY
from virtex.distributed.world import World

DISK, SHARED = 3 * 10**9, 2 * 10**9


def facts(machine="a", **other):
    """Of a process that just fits, with two processes on its machine."""
    alike = {"configuration": "c0ffee", "training data": "da7a", "code": "0123", "torch": "2.14"}
    fine = Facts(
        machine=machine,
        device="CPU",
        alike=alike,
        needs=Needs(Path("/runs/x"), DISK, SHARED),
        free_disk=DISK,
        free_shared_memory=2 * SHARED,
        writable=True,
        sum_is_right=True,
        megabytes_per_second=512.3,
    )
    return dataclasses.replace(fine, **{**other, "alike": {**alike, **other.get("alike", {})}})


def test_processes_that_are_alike_and_have_room_are_ready():
    assert verdicts([facts(), facts(), facts("b"), facts("b")]) == [[], [], [], []]


@pytest.mark.parametrize("name", ["configuration", "training data", "code", "torch"])
def test_a_process_that_differs_is_named_with_both_values(name):
    found = verdicts([facts(), facts(), facts("b", alike={name: "other"})])
    assert found[:2] == [[], []]
    assert found[2] == [f"{name} is other, of rank 0 it is {facts().alike[name]}"]


def test_all_differences_are_told_at_once():
    (_, found) = verdicts([facts(), facts(alike={"code": "9", "torch": "1"}, sum_is_right=False)])
    assert len(found) == 3


def test_a_wrong_sum_is_told_of_the_process_that_has_it():
    assert [len(found) for found in verdicts([facts(), facts(sum_is_right=False)])] == [0, 1]
    assert "network or GPU" in verdicts([facts(), facts(sum_is_right=False)])[1][0]


def test_every_process_must_be_able_to_write_its_log():
    first, second = verdicts([facts(), facts(writable=False)])
    assert (first, second) == ([], ["/runs/x may not be written to"])


def test_only_the_process_that_saves_needs_room_for_checkpoints():
    tight = DISK - 1
    assert verdicts([facts(), facts("b", free_disk=tight)]) == [[], []]
    first, second = verdicts([facts(free_disk=1), facts("b")])
    assert second == []
    assert first == ["/runs/x has 0.0 GB free, two checkpoints take 3.0 GB"]
    assert len(verdicts([facts(free_disk=tight)])[0]) == 1


def test_shared_memory_must_do_for_all_processes_of_a_machine():
    assert verdicts([facts(), facts("b"), facts()]) == [[], [], []]
    short = {"free_shared_memory": 2 * SHARED - 1}
    # One process alone would fit.
    assert verdicts([facts(**short), facts("b", **short)]) == [[], []]
    first, other, second = verdicts([facts(**short), facts("b", **short), facts(**short)])
    assert other == []
    for found in (first, second):
        assert len(found) == 1
        assert f"{SHARED_MEMORY} (shared memory) has 4,000.0 MB free" in found[0]
        assert "--cpu-workers" in found[0]
        assert "--shm-size" in found[0]


def test_a_system_without_shared_memory_files_has_nothing_to_run_out_of():
    assert verdicts([facts(free_shared_memory=None)] * 3) == [[], [], []]


def test_the_report_has_a_line_for_each_process_and_for_each_thing_that_is_wrong():
    told = [facts(), facts("b", writable=False, sum_is_right=False, device="H100")]
    lines = report(told, verdicts(told))
    assert lines[0] == (
        "rank 0 on a (CPU): ready; disk 3.0 GB free, shared memory 4.0 GB free, all-reduce 512 MB/s"
    )
    assert lines[1].startswith("rank 1 on b (H100): NOT READY; disk")
    assert [line.startswith("  ") for line in lines] == [False, False, True, True]
    assert [line.strip() for line in lines[2:]] == verdicts(told)[1]


def test_one_process_has_no_speed_of_sums():
    told = [facts(free_shared_memory=None)]
    assert report(told, verdicts(told)) == ["rank 0 on a (CPU): ready; disk 3.0 GB free"]


def test_the_facts_of_this_process_are_those_of_this_machine(tmp_path):
    world = World(rank=0, size=1, device=torch.device("cpu"))
    needs = Needs(tmp_path, 1, 2)
    told = preflight.facts(world, {"configuration": "c0ffee"}, needs)
    assert (told.machine, told.device, told.needs) == (socket.gethostname(), "CPU", needs)
    assert told.alike["configuration"] == "c0ffee"
    assert told.alike["torch"] == torch.__version__
    assert abs(told.free_disk - shutil.disk_usage(tmp_path).free) < 10**10
    assert told.writable
    assert told.sum_is_right
    assert verdicts([told]) == [[]]


def test_the_code_s_digest_is_the_same_in_each_process_and_another_for_other_code(tmp_path):
    package = Path(preflight.__file__).parents[1]
    shutil.copytree(package, tmp_path / "virtex", ignore=shutil.ignore_patterns("__pycache__"))
    copied = preflight.digest_of_code(tmp_path / "virtex")
    assert copied == preflight.digest_of_code(package)
    with (tmp_path / "virtex" / "cli.py").open("a") as file:
        file.write("# changed\n")
    assert preflight.digest_of_code(tmp_path / "virtex") != copied
