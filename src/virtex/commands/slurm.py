"""`virtex slurm`: submit `virtex pretrain` to a cluster, and requeue the job until it is done.

SLURM starts one process per GPU, and the processes find each other through the environment that
srun sets. When the job reaches its time limit or is preempted, the run is saved and the job is
queued again.
"""

import argparse
import json
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtex.commands import pretrain
from virtex.commands.arguments import add_int, local_path, positive_int
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.experiments.slurm_task import PretrainTask

_SET_BY_SLURM = (
    "--num-gpus-per-machine",
    "--num-machines",
    "--machine-rank",
    "--dist-url",
    "--max-restarts",
    "--debug-rank",
)
"""Flags of `virtex pretrain`."""

_SBATCH = {
    "partition": ("NAME", "partition to submit to"),
    "account": ("NAME", "account to charge"),
    "qos": ("NAME", "quality of service"),
    "constraint": ("FEATURES", "required features of the nodes"),
    "comment": ("TEXT", "comment on the job"),
    "mem": ("SIZE", "memory per node, such as 64G"),
    "exclude": ("NODES", "nodes that must not be used"),
    "gres": ("LIST", "generic resources per node, such as gpu:a100:4, to request GPUs by type"),
    "reservation": ("NAME", "reservation to use"),
    "mail-type": ("EVENTS", "events that send mail, such as END,FAIL"),
    "mail-user": ("ADDRESS", "recipient of the mail"),
}
"""Optional flags that are passed on to sbatch: metavar and help."""
_UNKNOWN_TO_SUBMITIT = ("reservation", "mail-type", "mail-user")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex slurm`."""
    job = parser.add_argument_group("resources")
    add_int(job, "--nodes", "number of nodes", default=1)
    add_int(
        job,
        "--gpus-per-node",
        "number of GPUs per node, with one process each; 0 trains on the CPU",
        default=0,
        minimum=0,
    )
    add_int(
        job,
        "--tasks-per-node",
        "number of processes per node when training on the CPU (default: 1)",
    )
    add_int(
        job, "--cpus-per-task", "number of cores per process (default: one more than --cpu-workers)"
    )
    job.add_argument(
        "--time", type=positive_int, required=True, metavar="MINUTES", help="time limit of the job"
    )
    add_int(
        job,
        "--notice",
        "how long before the time limit to save the run and requeue the job",
        default=120,
        metavar="SECONDS",
    )
    add_int(
        job, "--turns", "number of times that the job may run up to its time limit", default=100
    )
    for name, (metavar, description) in _SBATCH.items():
        job.add_argument(f"--{name}", type=_one_line, metavar=metavar, help=description)
    job.add_argument(
        "--job-name",
        type=_one_line,
        default="virtex",
        metavar="NAME",
        help="name of the job (default: %(default)s)",
    )
    job.add_argument(
        "--setup",
        type=_one_line,
        action="append",
        default=[],
        metavar="LINE",
        help="line of shell that the job runs first, such as 'module load cuda'; may be repeated",
    )
    where = parser.add_argument_group("submission")
    where.add_argument(
        "--no-data-check",
        action="store_true",
        help="queue the job without opening data and vocabulary, which only its nodes can read",
    )
    where.add_argument(
        "--folder",
        type=local_path,
        metavar="DIR",
        help="directory for logs and the files of submitit, shared by all nodes (default: the "
        "subdirectory slurm of the run directory)",
    )
    target = where.add_mutually_exclusive_group()
    target.add_argument(
        "--dry-run", action="store_true", help="print a script for sbatch without submitting it"
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
        help="arguments of `virtex pretrain`",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the job and the run, then submit the job."""
    tasks = _tasks_per_node(arguments)
    words = arguments.pretrain_arguments
    run_arguments = pretrain.parse(
        words,
        _SET_BY_SLURM,
        ", as SLURM starts the processes; use --nodes and --gpus-per-node before --",
    )
    directory = _checked_directory(
        run_arguments,
        processes=arguments.nodes * tasks,
        open_data=not arguments.no_data_check,
    )
    folder = (arguments.folder or directory / "slurm").absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--folder {folder} is a file; give a directory")
    task = _task(words, directory, arguments.gpus_per_node)
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(
            "virtex slurm needs submitit, which is not installed: "
            "pip install 'virtex-pretraining[slurm]'"
        ) from error
    cores = arguments.cpus_per_task or run_arguments.cpu_workers + 1
    parameters = _parameters(arguments, tasks, cores)
    try:
        if arguments.dry_run:
            print(_script(task, folder, parameters, arguments.turns), end="")
            return 0
        if arguments.cluster == "slurm":
            return _submit(task, folder, parameters, directory, arguments.turns)
        return _run_here(task, folder, arguments, tasks)
    except OSError as error:
        raise RunError(f"cannot write {error.filename}: {error.strerror}") from error


def _tasks_per_node(arguments: argparse.Namespace) -> int:
    gpus, tasks = arguments.gpus_per_node, arguments.tasks_per_node
    if gpus and tasks is not None:
        raise UserError(
            f"--tasks-per-node {tasks}: with --gpus-per-node {gpus} each GPU has one process; "
            "remove --tasks-per-node"
        )
    if arguments.notice >= arguments.time * 60:
        raise UserError(
            f"--notice {arguments.notice}: the notice must be shorter than --time "
            f"{arguments.time}, which is {arguments.time * 60} seconds"
        )
    count: int = gpus or tasks or 1
    if arguments.cluster != "slurm" and arguments.nodes > 1:
        raise UserError(
            f"--nodes {arguments.nodes}: --cluster {arguments.cluster} uses only this machine; "
            "remove --nodes"
        )
    if arguments.cluster == "debug" and count > 1:
        raise UserError(
            f"--cluster debug runs a single process, not {count}; use --cluster local instead"
        )
    return count


def _checked_directory(
    run_arguments: argparse.Namespace, processes: int, *, open_data: bool
) -> Path:
    """Return the run directory, after the checks of `virtex pretrain`.

    On the node they would come after a long wait in the queue. `open_data` reads the vocabulary and
    the lists of images and captions as well.
    """
    from virtex.build import data
    from virtex.build.observer import Observer
    from virtex.checkpoints.run_directory import LATEST, holds_run

    # The GPUs of the nodes cannot be seen from here.
    options = pretrain.checked_options(run_arguments, processes=processes)
    if options.resume_from == LATEST and not holds_run(options.directory):
        raise UserError(
            f"--resume-from latest: {options.directory} contains no run; check "
            "--serialization-dir, or omit --resume-from to start a new run"
        )
    if open_data:
        data.open_data(options.config, Observer(touched=False))
    return options.directory


def _task(words: list[str], run_directory: Path, gpus: int) -> "PretrainTask":
    from virtex.checkpoints.run_directory import CONFIG, LATEST
    from virtex.experiments.slurm_task import PretrainTask

    start = argparse.ArgumentParser(add_help=False)
    start.add_argument("--resume-from")
    for flag in pretrain.INIT_FLAGS:
        start.add_argument(flag)
    _, others = start.parse_known_args(words)
    python = [sys.executable, "-m", "virtex", "pretrain"]
    device = ["--num-gpus-per-machine", str(gpus)] if gpus else []
    return PretrainTask(
        first=(*python, *words, *device),
        again=(*python, *others, *device, "--resume-from", LATEST),
        begun=str((run_directory / CONFIG).absolute()),
    )


def _parameters(arguments: argparse.Namespace, tasks: int, cores: int) -> dict[str, Any]:
    """The parameters of the sbatch script, as submitit names them."""
    given = {name: getattr(arguments, name.replace("-", "_")) for name in _SBATCH}
    given = {name: value for name, value in given.items() if value is not None}
    others = {name: given.pop(name) for name in _UNKNOWN_TO_SUBMITIT if name in given}
    if arguments.gpus_per_node and "gpu" not in given.get("gres", ""):
        given["gpus_per_node"] = arguments.gpus_per_node
    return {
        "job_name": arguments.job_name,
        "time": arguments.time,
        "nodes": arguments.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cores,
        "signal_delay_s": arguments.notice,
        **given,
        "setup": arguments.setup or None,
        "additional_parameters": {"requeue": True, **others},
        # Since 22.05 srun does not take the cores of a task from sbatch. A process that fails ends
        # the others, which would wait for it.
        "srun_args": [f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"],
    }


def _script(task: "PretrainTask", folder: Path, parameters: dict[str, Any], turns: int) -> str:
    """A script for sbatch, built without SLURM's programs, that does what `_submit` does.

    It needs nothing that is not yet there: it makes the folder, and the file of the task that
    submitit would have written, unless the job has been requeued. Until the folder exists, SLURM
    logs to the directory of the submission, in which the job runs.
    """
    from submitit.slurm import slurm

    python = shlex.quote(sys.executable)
    quoted = shlex.quote(str(folder))
    described = shlex.quote(json.dumps(asdict(task)))
    task_file = f'{quoted}/"$SLURM_JOB_ID"_submitted.pkl'
    prepare = [
        f"mkdir -p {quoted}",
        f"[ -e {task_file} ] || {python} -m virtex.experiments.write_slurm_task {task_file} "
        f"{parameters['time']} {turns} {described} || exit",
    ]
    log = {"chdir": str(Path.cwd()), "output": "%x-%j.out", "error": "%x-%j.err"}
    changed = {
        "setup": [*(parameters["setup"] or []), *prepare],
        "additional_parameters": parameters["additional_parameters"] | log,
    }
    command = f"{python} -u -m submitit.core._submit {quoted}"
    return slurm._make_sbatch_string(command=command, folder=folder, **parameters | changed)


def _submit(
    task: "PretrainTask", folder: Path, parameters: dict[str, Any], directory: Path, turns: int
) -> int:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            raise UserError(
                f"{program} is not installed on this machine; submit from a login node of the "
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
        f"job {job.job_id} is queued; nodes: {parameters['nodes']}, processes per node: "
        f"{parameters['ntasks_per_node']}\n"
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
    print(
        f"job {job.job_id} is running on this machine\nlogs: {job.paths.stdout} and .err",
        flush=True,
    )
    try:
        status: int = max(job.results())
    except UncompletedJobError as error:
        raise RunError(f"the job did not finish: {error}") from error
    if status:
        print(f"the job ended with status {status}; see {job.paths.stderr}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    if len(text.splitlines()) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one line of text")
    return text
