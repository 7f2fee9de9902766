"""The results of captioning image files, and the formats in which they are written.

Each result is written in one piece, so that an interrupted run leaves only complete results.
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
from virtex.errors import UserError, printable
from virtex.files import reading, write_whole

Format = Literal["console", "jsonl", "json", "coco", "csv", "tsv"]

_DECIMALS = 4  # of scores in JSON; further digits are rounding errors
_COLUMNS = ("path", "caption", "score", "error")
_RECORD_START = b'{"path": '
_MAX_PATH_WIDTH = 48  # longer paths are not aligned


@dataclass(frozen=True)
class Captioned:
    """An image file with its captions, best first; at least one."""

    path: Path
    captions: tuple[Caption, ...]


Result = Captioned | BadImage


@contextmanager
def result_writer(
    stream: TextIO, form: Format, *, path_width: int
) -> Iterator[Callable[[Result], None]]:
    """A function that writes a result to `stream`; the end of the document follows on exit.

    `path_width` is that of the longest path, for the console. The console and COCO's results have
    no entry for a `BadImage`.
    """
    match form:
        case "console":
            width = min(path_width, _MAX_PATH_WIDTH)
            yield lambda result: _put(stream, _console_text(result, width))
        case "jsonl":
            yield lambda result: _put(stream, f"{_json_text(result, stream)}\n")
        case "json" | "coco":
            text = _json_text if form == "json" else _coco_text
            written = 0

            def write(result: Result) -> None:
                nonlocal written
                if entry := text(result, stream):
                    _put(stream, f"{',' if written else '['}\n{entry}")
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
    """One row per caption, best first; a single row for a `BadImage`."""
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


def _console_text(result: Result, path_width: int) -> str:
    """A line with path, score and caption, or several captions in lines below their path."""
    if isinstance(result, BadImage):
        return ""
    path = printable(result.path)
    lines = [f"{caption.score:8.2f}  {caption.text or '(no words)'}" for caption in result.captions]
    if len(lines) == 1:
        return f"{path:<{path_width}}{lines[0]}\n"
    return "\n".join([path, *lines]) + "\n"


def _json_text(result: Result, stream: TextIO) -> str:
    """One JSON object without line breaks, in ASCII unless `stream` is UTF-8."""
    record: dict[str, object] = {"path": str(result.path)}
    if isinstance(result, BadImage):
        record["error"] = result.reason
    else:
        record["captions"] = [
            {"text": caption.text, "score": round(caption.score, _DECIMALS)}
            for caption in result.captions
        ]
    return _dumped(record, stream)


def _coco_text(result: Result, stream: TextIO) -> str:
    """The best caption as one entry of COCO's results; empty for a `BadImage`."""
    if isinstance(result, BadImage):
        return ""
    entry = {"image_id": image_id(result.path), "caption": result.captions[0].text}
    return _dumped(entry, stream)


def image_id(path: Path) -> int | str:
    """The id of an image in COCO's results: the name of its file, as a number if it is one."""
    name = path.stem
    return int(name) if name.isascii() and name.isdecimal() else name


def _dumped(record: Mapping[str, object], stream: TextIO) -> str:
    is_utf8 = (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"
    return json.dumps(record, ensure_ascii=not is_utf8)


def load_finished(output: Path, wanted: Collection[str]) -> set[str]:
    """The paths that an interrupted run has captioned, from its JSONL file, which may be missing.

    An incomplete last line is removed from the file, and so are the errors of `wanted` paths, which
    will be tried again. Raises `UserError` if the file holds anything else.
    """
    if not output.exists():
        return set()
    with reading(output):
        content = output.read_bytes()
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        torn = lines.pop()
        if not (torn.startswith(_RECORD_START) or _RECORD_START.startswith(torn)):
            raise _not_a_result(output, len(lines) + 1)
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
        raise _not_a_result(output, number) from error
    known = isinstance(record, dict) and isinstance(record.get("path"), str)
    if not known or not record.keys() & {"captions", "error"}:
        raise _not_a_result(output, number)
    return record  # type: ignore[no-any-return]


def _not_a_result(output: Path, number: int) -> UserError:
    return UserError(
        f"line {number} of {output} is not a result of `virtex caption`, so nothing is appended; "
        "remove the line, or choose another --output"
    )


def _put(stream: TextIO, text: str) -> None:
    """Write the text, with characters that the stream cannot encode escaped.

    In UTF-8 these are only lone surrogates (bytes of other encodings), with the escapes of JSON.
    """
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
