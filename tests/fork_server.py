"""Python programs that tests start, forked from a process that has imported torch and virtex.

A start of Python with torch and virtex takes seconds of computing, a fork milliseconds. `Server`
takes the place of fork and exec in `subprocess.Popen`; all else of it is as it was, and so is the
process: a child of its caller, in the session, group and directory that were asked for, with the
descriptors, environment, signals and command line of its own. Whatever such a process starts
through `subprocess`, as an agent does, comes from a server of its own. What cannot be had from a
fork is started as ever: another executable, options of the interpreter, a preexec_fn.
"""

import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

CLONE_PARENT = 0x8000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine()) if sys.platform == "linux" else None
"""The number of the system call, where it is known."""
FROM = ("torch._dynamo", "torch.distributed.run", "torch.utils.tensorboard", "torchvision")
ROOM = 1 << 12
"""Bytes that /proc has for a command line, and as many for an environment."""
FIXED = ("LD_", "PYTHON")
"""Variables that count when an interpreter starts."""

start_anew = subprocess.Popen._execute_child


@dataclass(frozen=True)
class Program:
    """What is to be run, and the state of the process that asks for it."""

    words: list[str]
    directory: str
    environment: dict[str, str]
    session: bool
    group: int
    descriptors: list[int]
    ignored: list[int]
    blocked: list[int]

    def run(self, asked, received):
        """Become the process, tell who asked, with these descriptors, and run the program."""
        if self.session:
            os.setsid()
        else:
            os.setpgid(0, self.group)
        with asked:
            asked.sendall(os.getpid().to_bytes(8, "big"))
        self._take_place(received)
        importlib.invalidate_caches()
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            serve(theirs)
            return
        theirs.close()
        Server(ours).install()
        threads = self.environment.get("OMP_NUM_THREADS")
        sys.modules["torch"].set_num_threads(int(threads) if threads else os.cpu_count())
        os._exit(status_of(self._run_main))

    def _take_place(self, received):
        """Descriptors, directory, environment and signals, as after an exec."""
        above = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 200) for one in received]
        for descriptor, target in zip(above, self.descriptors, strict=True):
            os.dup2(descriptor, target)
        for descriptor in (*received, *above):
            if descriptor not in self.descriptors:
                os.close(descriptor)
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.environment)
        bounds = [int(word) for word in Path("/proc/self/stat").read_text().split()[-5:-1]]
        show(bounds[:2], [sys.executable, *self.words])
        show(bounds[2:], [f"{name}={value}" for name, value in self.environment.items()])
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            given = signal.SIG_IGN if number in self.ignored else signal.SIG_DFL
            signal.signal(number, given)
        if signal.SIGINT not in self.ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python does when it starts
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)

    def _run_main(self):
        main = sys.modules["__main__"] = ModuleType("__main__")
        first, *rest = self.words
        if first == "-u":  # as torchrun starts its processes
            first, *rest = rest
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(write_through=True)
        paths = [path for path in self.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [self.directory, *paths, *sys.path]
        if first == "-m":
            sys.argv[:] = rest
            runpy._run_module_as_main(rest[0])
        elif first == "-c":
            sys.path[0] = ""
            sys.argv[:] = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), vars(main))
        else:
            sys.path[0] = str(Path(first).resolve().parent)
            sys.argv[:] = [first, *rest]
            main.__file__ = first
            exec(compile(Path(first).read_bytes(), first, "exec"), vars(main))


def status_of(function):
    """The exit status of a program with this as its main, after all that Python does at its end.

    But for what is in memory: to free a copy of torch takes longer than most programs.
    """
    status = 0
    try:
        function()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            status = -signal.SIGINT
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = 120
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status & 0xFF


def show(bounds, words):
    """Let /proc show these words between two addresses, as many of them as there is room for."""
    start, end = bounds
    content = b"".join(os.fsencode(word) + b"\0" for word in words)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, content, len(content))


def fork_sibling():
    """`os.fork`, but for the child's parent, which is ours."""
    # Of a process with a single thread; locks of the C library's need no care.
    python, library = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    python.PyOS_BeforeFork()
    pid = library.syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def serve(connection):
    """Fork a process for each program that is asked for, until nobody can ask any more."""
    os.setpgid(0, 0)  # what is sent to the group is not for us
    devnull = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(devnull, number)
    os.close(devnull)
    while True:
        header, received, _, _ = socket.recv_fds(connection, 8, 64)
        if not header:
            return
        with connection.makefile("rb") as stream:
            program = Program(**json.loads(stream.read(int.from_bytes(header, "big"))))
        if fork_sibling() == 0:
            program.run(connection, received)
            return
        for descriptor in received:
            os.close(descriptor)


class Server:
    """The side of those who ask."""

    def __init__(self, connection, process=None):
        self._connection, self._process = connection, process
        self._lock = threading.Lock()
        # Else the server would stay for as long as a worker of the loader.
        os.register_at_fork(after_in_child=connection.close)

    @classmethod
    def start(cls):
        """A server of this process; it ends with it."""
        ours, theirs = socket.socketpair()
        with theirs:
            room = {"ROOM": " " * ROOM}
            process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), " " * ROOM],
                env=os.environ | room | {"OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
            )
        return cls(ours, process)

    def install(self):
        """Let subprocess start its programs here."""

        def execute(popen, *arguments):
            if not self._started(popen, *arguments):
                start_anew(popen, *arguments)

        subprocess.Popen._execute_child = execute

    def close(self):
        subprocess.Popen._execute_child = start_anew
        self._connection.close()
        self._process.wait()

    def _started(
        self,
        popen,
        args,
        executable,
        preexec_fn,
        close_fds,
        pass_fds,
        cwd,
        env,
        _startupinfo,
        _creationflags,
        shell,
        *rest,
    ):
        *pipes, restore_signals, gid, gids, uid, umask, session, group = rest
        given = os.environ if env is None else env
        environment = {os.fsdecode(name): os.fsdecode(given[name]) for name in given}
        words = [] if isinstance(args, str | bytes | os.PathLike) else list(map(os.fsdecode, args))
        plain = (preexec_fn, gid, gids, uid) == (None,) * 4 and (shell, umask) == (False, -1)
        plain = plain and restore_signals and close_fds and executable in (None, sys.executable)
        plain = plain and group == -1 and words[:1] == [sys.executable]
        if not plain or self._connection.fileno() == -1:
            return False
        if not can_fork(words[1:], environment) or not Path(cwd or ".").is_dir():
            return False
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        standard = [p2cread, c2pwrite, errwrite]
        standard = [number if one == -1 else one for number, one in enumerate(standard)]
        program = Program(
            words[1:],
            str(Path(os.fsdecode(cwd or ".")).resolve()),
            environment,
            session,
            os.getpgid(0),
            [0, 1, 2, *pass_fds],
            [one for one in signal.valid_signals() if signal.getsignal(one) == signal.SIG_IGN],
            list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        )
        popen.pid = self._ask(json.dumps(vars(program)).encode(), [*standard, *pass_fds])
        popen._child_created = True
        popen._close_pipe_fds(*pipes)
        return True

    def _ask(self, content, descriptors):
        with self._lock:
            socket.send_fds(self._connection, [len(content).to_bytes(8, "big")], descriptors)
            self._connection.sendall(content)
            pid = int.from_bytes(self._connection.recv(8), "big")
        assert pid > 0, "the fork server has failed"
        return pid


def can_fork(words, environment):
    """Whether the words name a program alone, and no variable asks for another interpreter."""

    def fixed(variables):
        names = [name for name in variables if name.startswith(FIXED) and name != "PYTHONPATH"]
        return {name: variables[name] for name in names}

    words = words[1:] if words[:1] == ["-u"] else words
    plain = words[:1] in (["-c"], ["-m"]) or bool(words and not words[0].startswith("-"))
    return plain and fixed(environment) == fixed(os.environ)


def main():
    import virtex

    for name in (*FROM, "tiny_network"):  # which lies beside this file
        importlib.import_module(name)
    for module in pkgutil.walk_packages(virtex.__path__, "virtex."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    threads = [one.name for one in Path("/proc/self/task").iterdir()]
    assert len(threads) == 1, "a process of several threads cannot be forked"
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in sys.path[1:] if path not in paths]
    gc.collect()
    gc.freeze()
    with closing(socket.socket(fileno=int(sys.argv[1]))) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
