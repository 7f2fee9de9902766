"""`virtex slurm`: submits `virtex pretrain` to a cluster and requeues it until it is done.

SLURM starts one process for each GPU, and they find each other by the environment of srun. When the
job reaches its time limit or is preempted, the run is saved and the job is queued again.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtex.commands import pretrain
from virtex.commands.arguments import local_path, non_negative_int, positive_int
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.experiments.slurm_task import PretrainTask

_LAUNCH = {
    "num_gpus_per_machine": "--num-gpus-per-machine",
    "num_machines": "--num-machines",
    "machine_rank": "--machine-rank",
    "dist_url": "--dist-url",
    "max_restarts": "--max-restarts",
    "debug_rank": "--debug-rank",
}
"""Flags of `virtex pretrain` for what SLURM decides."""

_SITE = {
    "partition": ("NAME", "partition to submit to"),
    "account": ("NAME", "account to charge"),
    "qos": ("NAME", "quality of service"),
    "constraint": ("FEATURES", "required features of the nodes"),
    "comment": ("TEXT", "comment on the job"),
    "mem": ("SIZE", "memory per node, such as 64G"),
}
"""Flags that are passed to sbatch: what stands for the value, and the help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex slurm`."""
    job = parser.add_argument_group("resources")
    job.add_argument(
        "--nodes",
        type=positive_int,
        default=1,
        metavar="N",
        help="number of nodes (default: %(default)s)",
    )
    job.add_argument(
        "--gpus-per-node",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="number of GPUs per node, with one process each; 0 trains on the CPU (default: "
        "%(default)s)",
    )
    job.add_argument(
        "--tasks-per-node",
        type=positive_int,
        metavar="N",
        help="number of processes per node when training on CPUs (default: 1)",
    )
    job.add_argument(
        "--cpus-per-task",
        type=positive_int,
        metavar="N",
        help="number of cores per process (default: one more than --cpu-workers)",
    )
    job.add_argument(
        "--time", type=positive_int, required=True, metavar="MINUTES", help="time limit"
    )
    job.add_argument(
        "--notice",
        type=positive_int,
        default=120,
        metavar="SECONDS",
        help="how long before the time limit to save the run and requeue the job (default: "
        "%(default)s)",
    )
    job.add_argument(
        "--turns",
        type=positive_int,
        default=100,
        metavar="N",
        help="number of times that the job may run up to its time limit (default: %(default)s)",
    )
    for name, (value, summary) in _SITE.items():
        job.add_argument(f"--{name}", type=_one_line, metavar=value, help=summary)
    job.add_argument(
        "--job-name",
        type=_one_line,
        default="virtex",
        metavar="NAME",
        help="name of the job (default: %(default)s)",
    )
    where = parser.add_argument_group("submission")
    where.add_argument(
        "--folder",
        type=local_path,
        metavar="DIR",
        help="directory for logs and the files of submitit, shared by all nodes (default: slurm "
        "in the run directory)",
    )
    target = where.add_mutually_exclusive_group()
    target.add_argument(
        "--dry-run", action="store_true", help="print the script for sbatch without submitting it"
    )
    target.add_argument(
        "--cluster",
        choices=("slurm", "local", "debug"),
        default="slurm",
        help="where to run the job: on the SLURM cluster, on this machine (local) or in this "
        "process (debug) (default: %(default)s)",
    )
    parser.add_argument(
        "pretrain_arguments",
        nargs="*",
        metavar="-- ARGUMENT",
        help="arguments of virtex pretrain",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the job and the run, then submit it."""
    tasks = _tasks_per_node(arguments)
    how = pretrain.parse(
        arguments.pretrain_arguments,
        _LAUNCH,
        ": SLURM starts the processes; remove it, and give --nodes and --gpus-per-node before --",
    )
    if how.serialization_dir is None:
        how.serialization_dir = Path("runs") / how.config.stem
    _check_run(how, processes=arguments.nodes * tasks)
    folder = (arguments.folder or how.serialization_dir / "slurm").absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--folder {folder} is a file; give a directory")
    task = _task(arguments.pretrain_arguments, how.serialization_dir, arguments.gpus_per_node)
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(
            "virtex slurm needs submitit, which is not installed: "
            "pip install 'virtex-pretraining[slurm]'"
        ) from error
    cores = arguments.cpus_per_task or how.cpu_workers + 1
    parameters = _parameters(arguments, tasks, cores)
    try:
        if arguments.dry_run:
            print(_script(folder, parameters), end="")
            return 0
        if arguments.cluster == "slurm":
            return _submit(task, folder, parameters, how.serialization_dir, arguments.turns)
        return _run_here(task, folder, arguments, tasks)
    except OSError as error:
        raise RunError(f"writing {error.filename} failed: {error.strerror}") from error


def _tasks_per_node(arguments: argparse.Namespace) -> int:
    gpus, tasks = arguments.gpus_per_node, arguments.tasks_per_node
    if gpus and tasks is not None:
        raise UserError(
            f"--tasks-per-node {tasks}: with --gpus-per-node {gpus} each GPU has one process; "
            "remove it"
        )
    if arguments.notice >= arguments.time * 60:
        raise UserError(
            f"--notice {arguments.notice}: the notice must be shorter than --time "
            f"{arguments.time}, which is {arguments.time * 60} seconds"
        )
    count: int = gpus or tasks or 1
    if arguments.cluster != "slurm" and arguments.nodes > 1:
        raise UserError(f"--nodes {arguments.nodes}: --cluster {arguments.cluster} is one machine")
    if arguments.cluster == "debug" and count > 1:
        raise UserError(f"--cluster debug runs one process, not {count}; --cluster local runs more")
    return count


def _check_run(how: argparse.Namespace, processes: int) -> None:
    """What `virtex pretrain` would say on the node, after a long wait in the queue."""
    from virtex.checkpoints import run_directory as directory

    # The GPUs of the nodes cannot be seen from here.
    pretrain.checked_options(how, processes=processes)
    if how.resume_from == directory.LATEST and not directory.holds_run(how.serialization_dir):
        raise UserError(
            f"--resume-from latest: there is no run in {how.serialization_dir}; check "
            "--serialization-dir, or leave --resume-from out to begin a new run"
        )


def _task(words: list[str], run_directory: Path, gpus: int) -> "PretrainTask":
    from virtex.checkpoints import run_directory as directory
    from virtex.experiments.slurm_task import PretrainTask

    start = argparse.ArgumentParser(add_help=False)
    start.add_argument("--resume-from")
    start.add_argument("--init-from")
    _, others = start.parse_known_args(words)
    python = [sys.executable, "-m", "virtex", "pretrain"]
    device = ["--num-gpus-per-machine", str(gpus)] if gpus else []
    return PretrainTask(
        first=(*python, *words, *device),
        again=(*python, *others, *device, "--resume-from", directory.LATEST),
        begun=str((run_directory / directory.CONFIG).absolute()),
    )


def _parameters(arguments: argparse.Namespace, tasks: int, cores: int) -> dict[str, Any]:
    """The parameters of the sbatch script, as submitit names them."""
    site = {name: getattr(arguments, name) for name in _SITE}
    gpus = {"gpus_per_node": arguments.gpus_per_node} if arguments.gpus_per_node else {}
    return {
        "job_name": arguments.job_name,
        "time": arguments.time,
        "nodes": arguments.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cores,
        "signal_delay_s": arguments.notice,
        **gpus,
        **{name: value for name, value in site.items() if value is not None},
        "additional_parameters": {"requeue": True},
        # Since 22.05 srun does not take the cores of a task from sbatch. A process that fails ends
        # the others, which would wait for it.
        "srun_args": [f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"],
    }


def _script(folder: Path, parameters: dict[str, Any]) -> str:
    """What would be submitted, made without the programs of SLURM; a test compares the two."""
    from submitit.slurm import slurm

    python = shlex.quote(sys.executable)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return slurm._make_sbatch_string(command=command, folder=folder, **parameters)


def _submit(
    task: "PretrainTask", folder: Path, parameters: dict[str, Any], directory: Path, turns: int
) -> int:
    import shutil

    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if missing:
        raise UserError(
            f"{missing[0]} is not installed on this machine; submit from a login node of the "
            "cluster, print the script with --dry-run, or run the job here with --cluster local"
        )
    executor = SlurmExecutor(folder, max_num_timeout=turns - 1)
    executor.update_parameters(**parameters)
    try:
        job = executor.submit(task)
    except (FailedJobError, FailedSubmissionError) as error:
        raise RunError(f"sbatch rejected the job: {error}") from error
    log = shlex.quote(str(job.paths.stdout))
    print(
        f"job {job.job_id} is queued: {parameters['nodes']} nodes of "
        f"{parameters['ntasks_per_node']} processes\n"
        f"run directory: {directory}\n"
        f"logs: {job.paths.stdout} and .err; process 0 logs the progress\n"
        f"watch:   squeue --jobs {job.job_id}; tail -F {log}\n"
        f"cancel:  scancel {job.job_id}"
    )
    return 0


def _run_here(task: "PretrainTask", folder: Path, arguments: argparse.Namespace, tasks: int) -> int:
    """Run the job to its end without a cluster; returns the largest exit status."""
    from submitit import DebugExecutor, LocalExecutor
    from submitit.core.utils import UncompletedJobError

    if arguments.cluster == "debug":
        return max(DebugExecutor(folder).submit(task).results())
    executor = LocalExecutor(folder, max_num_timeout=arguments.turns - 1)
    executor.update_parameters(
        timeout_min=arguments.time,
        tasks_per_node=tasks,
        gpus_per_node=arguments.gpus_per_node,
        signal_delay_s=arguments.notice,
    )
    job = executor.submit(task)
    print(f"job {job.job_id} runs here\nlogs: {job.paths.stdout} and .err", flush=True)
    try:
        statuses: list[int] = job.results()
    except UncompletedJobError as error:
        raise RunError(f"the job did not finish: {error}") from error
    status = max(statuses)
    if status:
        print(f"status {status}; see {job.paths.stderr}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    if not text or len(text.splitlines()) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one line of text")
    return text
