import dataclasses
import shutil
import socket
from pathlib import Path

import pytest
import torch

from virtex.distributed import preflight
from virtex.distributed.preflight import (
    ProcessReport,
    Requirements,
    find_problems,
    inspect_process,
    report_lines,
)
from virtex.distributed.shared_memory import SHARED_MEMORY
from virtex.distributed.world import World

DISK, SHARED = 3 * 10**9, 2 * 10**9


def process(machine="a", **other):
    """The report of a process that just fits, with two processes on its machine."""
    same = {"configuration": "c0ffee", "training data": "da7a", "code": "0123", "torch": "2.14"}
    fine = ProcessReport(
        machine=machine,
        device="CPU",
        must_match=same,
        requirements=Requirements(Path("/runs/x"), DISK, SHARED),
        free_disk=DISK,
        free_shared_memory=2 * SHARED,
        writable=True,
        sum_is_right=True,
        megabytes_per_second=512.3,
    )
    other["must_match"] = same | other.get("must_match", {})
    return dataclasses.replace(fine, **other)


def test_processes_that_agree_and_have_room_are_ready():
    assert find_problems([process(), process(), process("b"), process("b")]) == [[], [], [], []]


@pytest.mark.parametrize("name", ["configuration", "training data", "code", "torch"])
def test_a_process_that_differs_is_named_with_both_values(name):
    found = find_problems([process(), process(), process("b", must_match={name: "other"})])
    assert found[:2] == [[], []]
    assert found[2] == [f"{name} is other, but {process().must_match[name]} on rank 0"]


def test_all_differences_are_reported_at_once():
    second = process(must_match={"code": "9", "torch": "1"}, sum_is_right=False)
    (_, found) = find_problems([process(), second])
    assert len(found) == 3


def test_a_wrong_sum_is_reported_for_the_process_that_has_it():
    first, second = find_problems([process(), process(sum_is_right=False)])
    assert first == []
    (message,) = second
    assert "network or its GPU" in message


def test_every_process_must_be_able_to_write_its_log():
    first, second = find_problems([process(), process(writable=False)])
    assert (first, second) == ([], ["/runs/x is not writable"])


def test_only_the_process_that_saves_needs_room_for_checkpoints():
    tight = DISK - 1
    assert find_problems([process(), process("b", free_disk=tight)]) == [[], []]
    first, second = find_problems([process(free_disk=1), process("b")])
    assert second == []
    assert first == ["/runs/x has 0.0 GB free, but two checkpoints take 3.0 GB"]
    assert len(find_problems([process(free_disk=tight)])[0]) == 1


def test_shared_memory_must_suffice_for_all_processes_of_a_machine():
    assert find_problems([process(), process("b"), process()]) == [[], [], []]
    short = {"free_shared_memory": 2 * SHARED - 1}
    # One process alone would fit.
    assert find_problems([process(**short), process("b", **short)]) == [[], []]
    reports = [process(**short), process("b", **short), process(**short)]
    first, other, second = find_problems(reports)
    assert other == []
    for found in (first, second):
        assert len(found) == 1
        assert f"{SHARED_MEMORY} (shared memory) has 4,000.0 MB free" in found[0]
        assert "--cpu-workers" in found[0]
        assert "--shm-size" in found[0]


def test_a_system_without_shared_memory_files_has_nothing_to_run_out_of():
    assert find_problems([process(free_shared_memory=None)] * 3) == [[], [], []]


def test_the_report_has_a_line_for_each_process_and_for_each_thing_that_is_wrong():
    reports = [process(), process("b", writable=False, sum_is_right=False, device="H100")]
    lines = report_lines(reports, find_problems(reports))
    assert lines[0] == (
        "rank 0 on a (CPU): ready; disk 3.0 GB free, shared memory 4.0 GB free, all-reduce 512 MB/s"
    )
    assert lines[1].startswith("rank 1 on b (H100): NOT READY; disk")
    assert [line.startswith("  ") for line in lines] == [False, False, True, True]
    assert [line.strip() for line in lines[2:]] == find_problems(reports)[1]


def test_one_process_reports_no_all_reduce_speed():
    reports = [process(free_shared_memory=None)]
    assert report_lines(reports, find_problems(reports)) == [
        "rank 0 on a (CPU): ready; disk 3.0 GB free"
    ]


def test_the_report_of_this_process_is_that_of_this_machine(tmp_path):
    world = World(rank=0, size=1, device=torch.device("cpu"))
    requirements = Requirements(tmp_path, 1, 2)
    own = inspect_process(world, {"configuration": "c0ffee"}, requirements)
    assert (own.machine, own.device) == (socket.gethostname(), "CPU")
    assert own.requirements == requirements
    assert own.must_match["configuration"] == "c0ffee"
    assert own.must_match["torch"] == torch.__version__
    assert abs(own.free_disk - shutil.disk_usage(tmp_path).free) < 10**10
    assert own.writable
    assert own.sum_is_right
    assert find_problems([own]) == [[]]


def test_the_code_s_digest_is_the_same_in_each_process_and_another_for_other_code(tmp_path):
    package = Path(preflight.__file__).parents[1]
    shutil.copytree(package, tmp_path / "virtex", ignore=shutil.ignore_patterns("__pycache__"))
    copied = preflight.digest_of_code(tmp_path / "virtex")
    assert copied == preflight.digest_of_code(package)
    with (tmp_path / "virtex" / "cli.py").open("a") as file:
        file.write("# changed\n")
    assert preflight.digest_of_code(tmp_path / "virtex") != copied
