import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.distributed.environment import ProcessInfo, first_host, read_environment
from virtex.errors import UserError

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "virtex",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SBATCH = {
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "gpu[07-09]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
SRUN = {
    **SBATCH,
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_NODELIST": "gpu[08-09]",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
}


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


def test_an_empty_environment_is_one_process():
    assert read_environment({}) == ProcessInfo()


def test_torchrun_sets_every_variable():
    expected = ProcessInfo(
        rank=5,
        size=8,
        local_rank=1,
        host="node-a",
        port=29500,
        attempt=2,
        agent=True,
        agent_serves=True,
    )
    assert read_environment(TORCHRUN) == expected


def test_torchrun_s_names_without_its_agent_do_not_make_one():
    """As `virtex slurm --cluster local` sets them, or a script of one's own."""
    environment = without(TORCHRUN, *(name for name in TORCHRUN if name.startswith("TORCHELASTIC")))
    process = read_environment(environment)
    assert (process.agent, process.agent_serves, process.attempt) == (False, False, 0)
    assert (process.rank, process.size, process.host, process.port) == (5, 8, "node-a", 29500)


def test_the_one_process_of_an_agent_needs_no_address():
    environment = {"WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "3"}
    assert read_environment(environment) == ProcessInfo(agent=True, attempt=3)


def test_torchrun_takes_precedence_over_srun():
    """An agent may itself have been started by srun, one on each machine."""
    assert read_environment({**SRUN, **TORCHRUN}) == read_environment(TORCHRUN)


def test_srun_gives_each_task_its_rank_and_the_first_host_of_its_step():
    process = read_environment(SRUN)
    assert process == ProcessInfo(rank=4, size=6, local_rank=1, host="gpu08", port=process.port)
    assert 1024 < process.port < 32768


def test_the_tasks_of_a_step_agree_on_a_port_and_the_next_job_takes_another():
    def port(**other):
        return read_environment({**SRUN, **other}).port

    assert port(SLURM_PROCID="0", SLURM_LOCALID="0") == port()
    assert port(SLURM_JOB_ID="1235") != port()
    assert port(SLURM_STEP_ID="3") != port()


def test_a_given_address_takes_precedence_over_slurm_s():
    process = read_environment({**SRUN, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000"})
    assert (process.host, process.port) == ("10.0.0.7", 4000)


def test_a_job_that_slurm_has_queued_again_is_a_later_attempt():
    assert read_environment({**SRUN, "SLURM_RESTART_COUNT": "1"}).attempt == 1


@pytest.mark.parametrize(
    "environment",
    [
        SBATCH,
        # Of one task; and what an older SLURM leaves in the shell of salloc.
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        without(SRUN, "SLURM_PROCID"),
    ],
)
def test_what_srun_has_not_started_as_one_of_several_is_one_process(environment):
    assert read_environment(environment) == ProcessInfo()


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_torchrun_s_environment_lacks_is_named(name, value):
    environment = without(TORCHRUN, name) if value is None else {**TORCHRUN, name: value}
    with pytest.raises(UserError, match=f"no {name};"):
        read_environment(environment)


@pytest.mark.parametrize("name", ["SLURM_LOCALID", "SLURM_STEP_NODELIST"])
def test_what_srun_s_environment_lacks_is_named(name):
    environment = without(SRUN, name, "SLURM_JOB_NODELIST")
    with pytest.raises(UserError, match=f"no {name.replace('STEP', 'JOB')};"):
        read_environment(environment)


@pytest.mark.parametrize(
    ("environment", "name", "value"),
    [
        (TORCHRUN, "RANK", "-1"),
        (TORCHRUN, "RANK", "first"),
        (TORCHRUN, "WORLD_SIZE", "2.0"),
        (TORCHRUN, "WORLD_SIZE", "0"),
        (TORCHRUN, "RANK", "8"),
        (TORCHRUN, "MASTER_PORT", "70000"),
        (TORCHRUN, "MASTER_PORT", "0"),
        (TORCHRUN, "TORCHELASTIC_RESTART_COUNT", "once"),
        (SRUN, "SLURM_STEP_NUM_TASKS", "4(x2)"),
        (SRUN, "SLURM_PROCID", "6"),
        (SRUN, "SLURM_JOB_ID", "1234_5"),
        (SRUN, "SLURM_RESTART_COUNT", "١"),
    ],
)
def test_an_impossible_number_is_named(environment, name, value):
    with pytest.raises(UserError, match=re.escape(f"{name} is '{value}'")):
        read_environment({**environment, name: value})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("gpu[01-04,07]", "gpu01"),
        ("gpu[04]", "gpu04"),
        ("gpu[7,9-12],login", "gpu7"),
        ("login,gpu[7,9-12]", "login"),
        ("r[1-2]n[03-04],x", "r1n03"),
        ("rack-2-node-[008-010]", "rack-2-node-008"),
        ("gpu[01-04].cluster.org,b", "gpu01.cluster.org"),
        ("10-0-0-7,10-0-0-8", "10-0-0-7"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first


names = st.from_regex(r"[a-z][a-z0-9-]{0,4}[a-z-]", fullmatch=True)
numbers = st.lists(st.integers(0, 999), min_size=1, max_size=3)


@given(
    st.lists(st.tuples(names, numbers, st.booleans()), min_size=1, max_size=3), st.integers(1, 4)
)
def test_the_short_form_begins_with_the_first_of_the_hosts_that_it_stands_for(groups, width):
    written, hosts = [], []
    for name, first_numbers, range_follows in groups:
        ranges = []
        for number in first_numbers:
            low, high = f"{number:0{width}}", f"{number + 3:0{width}}"
            ranges.append(f"{low}-{high}" if range_follows else low)
            hosts.append(f"{name}{low}")
        written.append(f"{name}[{','.join(ranges)}]")
    assert first_host(",".join(written)) == hosts[0]


@pytest.mark.parametrize("nodes", ["", ",a", "]"])
def test_an_invalid_node_list_is_an_error(nodes):
    with pytest.raises(UserError, match="SLURM_STEP_NODELIST"):
        first_host(nodes)
