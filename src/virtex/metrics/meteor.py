"""METEOR by the Java program meteor-1.5.jar (Denkowski and Lavie, WMT 2014), over its pipes.

The protocol of `-stdio`: a line `SCORE ||| reference ||| … ||| hypothesis` is answered by a line of
statistics, and `EVAL ||| statistics ||| …` by a line with the score of each, and one of all.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from virtex.errors import RunError
from virtex.metrics.ngrams import Tokens

_HEAP = "-Xmx2G"
_PATIENCE = 2.0  # seconds to end
_SHOWN = 300  # characters of what Java writes to its standard error


def find_java() -> str | None:
    """The path of the program `java`, or None."""
    return shutil.which("java")


def meteor(
    java: str, jar: Path, predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> tuple[float, list[float]]:
    """METEOR of the corpus and of each image, (N,), for English, between 0 and 1.

    Raises RunError when the program does not answer as meteor-1.5 does.
    """
    command = [java, _HEAP, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            return _converse(process.stdin, process.stdout, predictions, references)
        except (OSError, ValueError) as error:
            _end(process, process.stdin)
            errors.seek(0)
            written = " ".join(errors.read().decode("utf-8", "replace").split())
            raise RunError(
                f"{jar} did not answer as meteor-1.5.jar does: {error}"
                + (f"; Java wrote: {written[-_SHOWN:]}" if written else "")
            ) from error
        finally:
            _end(process, process.stdin)


def _end(process: subprocess.Popen[str], questions: IO[str]) -> None:
    """End the program, which does so itself when its input ends."""
    with suppress(OSError):
        questions.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def _converse(
    questions: IO[str],
    answers: IO[str],
    predictions: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
) -> tuple[float, list[float]]:
    """Send all captions and read the scores; raises OSError and ValueError."""
    statistics = []
    for prediction, image in zip(predictions, references, strict=True):
        texts = (" ".join(tokens).replace("|||", "") for tokens in (*image, prediction))
        _send(questions, " ||| ".join(("SCORE", *texts)))
        line = answers.readline()
        if not line.strip():
            raise ValueError("expected a line of statistics, got nothing")
        statistics.append(line.strip())
    _send(questions, " ||| ".join(("EVAL", *statistics)))
    scores = [float(answers.readline()) for _ in predictions]
    return float(answers.readline()), scores


def _send(stream: IO[str], line: str) -> None:
    stream.write(line + "\n")
    stream.flush()
