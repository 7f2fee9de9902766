"""What captioning an image gives, and the forms in which it is written.

A result is written in one piece, so that whatever ends a run leaves whole results.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, assert_never

from virtex.data.images import BadImage
from virtex.decoding.captioner import Caption
from virtex.errors import UserError
from virtex.files import write_whole

Form = Literal["console", "jsonl", "json", "csv", "tsv"]

_DECIMALS = 4  # of scores in JSON; what follows is rounding
_COLUMNS = ("path", "caption", "score", "error")
_RECORD_START = b'{"path": '
_WIDEST_PATH = 48  # that others are aligned to


@dataclass(frozen=True)
class Captioned:
    """An image file with its captions, best first; at least one."""

    path: Path
    captions: tuple[Caption, ...]


Result = Captioned | BadImage
Write = Callable[[Result], None]


@contextmanager
def result_writer(stream: TextIO, form: Form, *, path_width: int) -> Iterator[Write]:
    """A function that writes a result to `stream`; what closes the form follows at the end.

    `path_width` is that of the longest path, for the console, which shows no `BadImage`.
    """
    match form:
        case "console":
            width = min(path_width, _WIDEST_PATH)
            yield lambda result: _put(stream, console_text(result, width))
        case "jsonl":
            yield lambda result: _put(stream, f"{json_text(result, stream)}\n")
        case "json":
            written = 0

            def write(result: Result) -> None:
                nonlocal written
                _put(stream, f"{',' if written else '['}\n{json_text(result, stream)}")
                written += 1

            try:
                yield write
            finally:
                _put(stream, "\n]\n" if written else "[]\n")
                stream.flush()
        case "csv" | "tsv":
            delimiter = "," if form == "csv" else "\t"
            _put(stream, _table_text([_COLUMNS], delimiter))
            yield lambda result: _put(stream, _table_text(_rows(result), delimiter))
        case _:
            assert_never(form)


def _rows(result: Result) -> list[list[str]]:
    """A row for each caption, best first; one for a `BadImage`."""
    if isinstance(result, BadImage):
        return [[str(result.path), "", "", result.reason]]
    return [
        [str(result.path), caption.text, f"{caption.score:.{_DECIMALS}f}", ""]
        for caption in result.captions
    ]


def _table_text(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def console_text(result: Result, path_width: int) -> str:
    """A line of path, score and caption; for several captions a line of the path, and each below.

    A `BadImage` is nothing.
    """
    if isinstance(result, BadImage):
        return ""
    lines = [f"{caption.score:8.2f}  {caption.text or '(no words)'}" for caption in result.captions]
    if len(lines) == 1:
        return f"{shown(result.path):<{path_width}}{lines[0]}\n"
    return "\n".join([shown(result.path), *lines]) + "\n"


def shown(path: Path) -> str:
    """A path for the console: escaped where its name is no text."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(result: Result, stream: TextIO) -> str:
    """One JSON object without a line break, that `stream` can encode."""
    record: dict[str, object] = {"path": str(result.path)}
    if isinstance(result, BadImage):
        record["error"] = result.reason
    else:
        record["captions"] = [
            {"text": caption.text, "score": round(caption.score, _DECIMALS)}
            for caption in result.captions
        ]
    return json.dumps(record, ensure_ascii=not _is_utf8(stream))


def take_up(output: Path, wanted: Collection[str]) -> set[str]:
    """The paths that an interrupted run has captioned, in its JSONL file, which may be missing.

    The end of a result that was not written whole is removed from the file, and so are errors
    of `wanted` paths, which can be tried again. Raises `UserError` where the file holds anything
    else.
    """
    if not output.exists():
        return set()
    try:
        content = output.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {output}: {error.strerror}") from error
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        torn = lines.pop()
        if not (torn.startswith(_RECORD_START) or _RECORD_START.startswith(torn)):
            raise _no_result(output, len(lines) + 1)
    records = [_record(output, number, line) for number, line in enumerate(lines, 1)]
    kept = b"".join(
        line
        for line, record in zip(lines, records, strict=True)
        if "captions" in record or record["path"] not in wanted
    )
    if kept != content:
        write_whole(output.resolve(), kept)
    return {record["path"] for record in records if "captions" in record}


def _record(output: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _no_result(output, number) from error
    known = isinstance(record, dict) and isinstance(record.get("path"), str)
    if not known or not record.keys() & {"captions", "error"}:
        raise _no_result(output, number)
    return record  # type: ignore[no-any-return]


def _no_result(output: Path, number: int) -> UserError:
    return UserError(
        f"line {number} of {output} is no result of `virtex caption`, so nothing is added to it; "
        "remove the line, or name another --output"
    )


def _put(stream: TextIO, text: str) -> None:
    """Write the text; escape what the stream cannot encode, such as file names of other encodings.

    In UTF-8 that is single surrogates alone, whose escape is JSON's.
    """
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"
