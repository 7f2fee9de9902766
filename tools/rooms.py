"""Count the rooms of the package, and the rooms through which a value passes.

    python tools/rooms.py [--source src]

A room is a folder or a module at the package's root; an arrow leads from a room to another that it
imports. Three walks are traced through a small run on the CPU, which takes about half a minute:
from a caption on disk to its loss, from a checkpoint to a caption, and from a setting to the
constructor that takes it. They use only the command line and `virtex.load`, so that `--source`, the
folder that holds the package, can belong to another commit.
"""

import argparse
import ast
import contextlib
import importlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import torch

PACKAGE = "virtex"
CONFIG = """
DATA:
  ROOT: {0}/scenes
  TOKENIZER_MODEL: {0}/pieces.model
  VOCAB_SIZE: 110
  IMAGE_CROP_SIZE: 64
MODEL:
  VISUAL: {{NAME: "torchvision::resnet18", FEATURE_SIZE: 512}}
  TEXTUAL: {{NAME: "transdec_postnorm::L1_H32_A2_F64"}}
OPTIM: {{OPTIMIZER_NAME: sgd, BATCH_SIZE: 8, WARMUP_STEPS: 0, NUM_ITERATIONS: 1}}
"""
RATE = "0.0123456789"
"""A learning rate that nothing else equals."""


def room(module: str) -> str:
    """The room of a module, named with the package's name."""
    return f"{module}.__init__".split(".")[1]


def imported_modules(package: Path, file: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it, each with the package's name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {_module(package, node.module, alias.name) for alias in node.names}
    return {name for name in found if name.split(".")[0] == package.name}


def _module(package: Path, module: str, name: str) -> str:
    """What `from module import name` imports: a module of that name, else `module`."""
    inner = package.parent.joinpath(*module.split("."), name)
    return f"{module}.{name}" if inner.is_dir() or inner.with_suffix(".py").exists() else module


def arrows(package: Path) -> set[tuple[str, str]]:
    """Pairs of a room and another that it imports."""
    pairs = set()
    for file in package.rglob("*.py"):
        importer = file.relative_to(package).parts[0].removesuffix(".py")
        pairs |= {(importer, room(module)) for module in imported_modules(package, file)}
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def count(source: Path) -> None:
    """Print the figures that are read from the source."""
    package, tests = source / PACKAGE, source.parent / "tests"
    sizes = {file.relative_to(package): _lines(file) for file in package.rglob("*.py")}
    root_modules = sorted(path.stem for path in sizes if len(path.parts) == 1)
    rooms = {path.parts[0].removesuffix(".py") for path in sizes}
    pairs = arrows(package)
    largest = max(sizes, key=lambda path: sizes[path])
    print(f"rooms           {len(rooms)}: {' '.join(sorted(rooms))}")
    print(f"arrows          {len(pairs)}, {sum(b == 'errors' for _, b in pairs)} of them to errors")
    print(f"root modules    {len(root_modules)}: {' '.join(root_modules)}")
    print(f"source lines    {sum(sizes.values())} in {len(sizes)} files")
    print(f"test lines      {sum(_lines(file) for file in tests.rglob('*.py'))}")
    print(f"largest module  {largest.as_posix()}, {sizes[largest]} lines")


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


class Walk:
    """The package's functions that were visited, in the order of their first visits."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], None] = {}

    def visit(self, frame: FrameType) -> None:
        """Add the frame's function; comprehensions, lambdas and generated methods do not count."""
        code = frame.f_code
        if in_package(frame) and not code.co_name.startswith("<"):
            self._functions.setdefault((frame.f_globals["__name__"], code.co_qualname))

    def visit_stack(self, frame: FrameType) -> None:
        """Add the functions that are being executed, the outermost first."""
        for caller in reversed(stack(frame)):
            self.visit(caller)

    def __str__(self) -> str:
        rooms = list(dict.fromkeys(room(module) for module, _ in self._functions))
        return f"{len(rooms)} rooms, {len(self._functions)} functions: {' > '.join(rooms)}"


def in_package(frame: FrameType) -> bool:
    """Whether a frame executes a line of the package's files."""
    module = str(frame.f_globals.get("__name__"))
    return module.split(".")[0] == PACKAGE and not frame.f_code.co_filename.startswith("<")


def stack(frame: FrameType | None) -> list[FrameType]:
    """The package's frames that are being executed, the innermost first."""
    found = []
    while frame is not None:
        if in_package(frame):
            found.append(frame)
        frame = frame.f_back
    return found


def code_of(function: Callable[..., object]) -> CodeType:
    """The code that frames of a Python function execute."""
    return function.__code__  # type: ignore[attr-defined, no-any-return]


def traced(
    run: Callable[[], object], trace: Callable[[FrameType, str], None], *, until: CodeType | None
) -> None:
    """Call `run`; `trace` gets frames with `call` or `return` before `until` is first called."""

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is until:
            sys.setprofile(None)
        if event in ("call", "return"):
            trace(frame, event)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)


def walk_of_caption(pretrain: Callable[[], object], captions: Path, images: Path) -> Walk:
    """All functions between the first opening of an image file and the backward pass.

    Before them those that are called by the room that opens `captions`, until it returns. Each time
    the functions that lead there count as well.
    """
    walk = Walk()
    recording, returning, done = False, None, False

    def opened(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal recording, returning
        if event != "open" or recording or done or not isinstance(arguments[0], str | os.PathLike):
            return
        path = Path(arguments[0])
        if path != captions and path.parent != images:
            return
        frames = stack(sys._getframe())
        if path == captions:
            rooms = [room(frame.f_globals["__name__"]) for frame in frames]
            inside = next(i for i, name in enumerate(rooms) if name != rooms[0])
            returning = frames[inside - 1]
        walk.visit_stack(frames[0])
        recording = True

    def trace(frame: FrameType, event: str) -> None:
        nonlocal recording, done
        if frame.f_code is backward:
            recording, done = False, True
        elif event == "return" and frame is returning:
            recording = False
        elif event == "call" and recording:
            walk.visit(frame)

    backward = code_of(torch.Tensor.backward)
    sys.addaudithook(opened)
    traced(pretrain, trace, until=backward)
    return walk


def walk_of_checkpoint(caption: Callable[[], object]) -> Walk:
    """All functions that are called."""
    walk = Walk()

    def trace(frame: FrameType, event: str) -> None:
        if event == "call":
            walk.visit(frame)

    traced(caption, trace, until=None)
    return walk


def walk_of_setting(pretrain: Callable[[], object], value: str) -> Walk:
    """The functions with a variable that holds the value, until the optimizer is constructed.

    A variable also holds it inside lists and mappings, not in an object of a class. Functions that
    lead to the constructor count as well, after the others.
    """
    walk = Walk()
    constructor = code_of(torch.optim.SGD.__init__)

    def holds(variable: object) -> bool:
        if isinstance(variable, dict):
            return any(map(holds, variable.values()))
        if isinstance(variable, list | tuple):
            return any(map(holds, variable))
        return type(variable) in (str, float) and variable in (value, float(value))

    def trace(frame: FrameType, _: str) -> None:
        if frame.f_code is constructor:
            walk.visit_stack(frame)
        elif in_package(frame) and holds(dict(frame.f_locals)):
            walk.visit(frame)

    traced(pretrain, trace, until=constructor)
    return walk


def print_walks(directory: Path) -> None:
    """Train for an iteration on drawn scenes, load the checkpoint, and print the walks."""
    package = importlib.import_module(PACKAGE)
    cli = importlib.import_module(f"{PACKAGE}.cli")

    def command(*words: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            status = cli.main([str(word) for word in words])
        assert status == 0, f"virtex {words[0]} ended with {status}"

    def pretrain(run: str) -> None:
        words = ("--config", config, "--serialization-dir", directory / run, "--cpu-workers", 0)
        command("pretrain", *words, "--config-override", "OPTIM.LR", RATE)

    def caption() -> None:
        package.load(checkpoint).caption([image])

    scenes, config = directory / "scenes", directory / "run.yaml"
    captions, images = scenes / "annotations" / "captions_train2017.json", scenes / "train2017"
    config.write_text(CONFIG.format(directory), encoding="utf-8")
    command("synthesize", scenes, "--train", 8, "--val", 2, "--size", 64, "--only", "coco")
    pieces = ("--output", directory / "pieces.model", "--vocab-size", 110)
    command("tokenizer", captions, *pieces)
    pretrain("first")  # so that no module is imported within a walk
    image, checkpoint = next(images.iterdir()), directory / "first" / "checkpoint_1.pth"
    caption()
    to_loss = walk_of_caption(lambda: pretrain("second"), captions, images)
    print("rooms and functions that are visited, the rooms in the order of their first visits")
    print(f"  from a caption to its loss           {to_loss}")
    print(f"  from a checkpoint to a caption       {walk_of_checkpoint(caption)}")
    to_constructor = walk_of_setting(lambda: pretrain("third"), RATE)
    print(f"  from a setting to its constructor    {to_constructor}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path(__file__).parent.parent / "src")
    source = parser.parse_args().source.resolve()
    count(source)
    sys.path.insert(0, str(source))
    with tempfile.TemporaryDirectory() as directory:
        print_walks(Path(directory).resolve())


if __name__ == "__main__":
    main()
