"""`virtex tokenizer`: a SentencePiece vocabulary from captions."""

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import local_path
from virtex.commands.layout_arguments import add_layout_arguments, data_of, given_flags
from virtex.commands.progress import Progress
from virtex.errors import UserError, first_few

if TYPE_CHECKING:
    from virtex.build.sources import ReportedRecords
    from virtex.config.data import Data
    from virtex.data.images import BadImage
    from virtex.data.sources.table_layout import TableLayout
    from virtex.text.normalize import Normalization
    from virtex.text.tokenizer import Tokenizer

_EXAMPLES = 3
_VOCAB_SIZE = 10000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex tokenizer`."""
    parser.add_argument(
        "paths",
        type=local_path,
        nargs="*",
        metavar="PATH",
        help="captions: COCO annotations (.json), a table (.csv, .tsv, .jsonl, .parquet) or plain "
        "text with one caption per line (.txt); or a directory that `virtex pretrain` or `virtex "
        "pack` reads, of which the training split is used; with --val-share, the side of it that "
        "is not drawn",
    )
    configuration = parser.add_argument_group("configuration, instead of PATH")
    configuration.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="YAML configuration of a run: read the training captions as the run does, and take "
        "output, size and normalization from DATA.TOKENIZER_MODEL, DATA.VOCAB_SIZE and "
        "DATA.TEXT_NORMALIZATION",
    )
    configuration.add_argument(
        "--config-override",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="settings that override those of the YAML file, such as DATA.ROOT datasets/mine",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="SentencePiece model to write, for DATA.TOKENIZER_MODEL (required without --config)",
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help=f"size of the vocabulary, for DATA.VOCAB_SIZE (default: {_VOCAB_SIZE})",
    )
    parser.add_argument(
        "--normalization",
        choices=("published", "nfkc_lower", "nfc", "none"),
        help="normalization of the captions, for DATA.TEXT_NORMALIZATION: published takes accents "
        "and other marks off, which changes letters of many languages; nfkc_lower keeps letters, "
        "nfc also capitals, none everything (default: published)",
    )
    layout = parser.add_argument_group("layout of PATH")
    add_layout_arguments(layout)
    layout.add_argument("--column", dest="caption_column", help=argparse.SUPPRESS)
    parser.add_argument(
        "--overwrite", action="store_true", help="overwrite the output file if it exists"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, write and describe the vocabulary; raises `UserError`."""
    # Imported here, so that `--help` answers at once.
    from virtex.files import write_whole
    from virtex.text.tokenizer import Tokenizer, train

    data = _checked(arguments)
    output: Path = arguments.output
    if output.is_dir():
        raise UserError(f"--output {output} is a directory; name a file in it")
    if output.exists() and not arguments.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or another --output")
    start = time.monotonic()
    captions = []
    with Progress("reading", None, "captions") as progress:
        for caption in _read(arguments, data, progress):
            captions.append(caption)
            progress.advance()
    described = [caption for caption in captions if caption.strip()]
    if not described:
        sources = arguments.paths if data is None else [each.root for each in data.all_sources]
        raise UserError(f"no captions in {', '.join(map(str, sources))}")
    model = train(described, arguments.vocab_size, arguments.normalization)
    tokenizer = Tokenizer.from_bytes(model)
    write_whole(output, tokenizer.model_bytes)
    blank = len(captions) - len(described)
    print(f"captions         {len(described):,} ({blank:,} blank ones skipped)")
    _describe(tokenizer, described)
    print(f"written          {output} in {time.monotonic() - start:.1f} s")
    if data is None and tokenizer.normalization != "published":
        print(f"train with it by DATA.TEXT_NORMALIZATION {tokenizer.normalization}")
    return 0


def _checked(arguments: argparse.Namespace) -> "Data | None":
    """The data of `--config`, if it is given; fills in output, size and normalization."""
    if arguments.config is None:
        if not arguments.paths or arguments.output is None or arguments.config_override:
            raise UserError("give PATH and --output, or --config with the settings of a run")
        if arguments.vocab_size is None:
            arguments.vocab_size = _VOCAB_SIZE
        arguments.normalization = arguments.normalization or "published"
        return None
    others = {
        "PATH": bool(arguments.paths),
        "--vocab-size": arguments.vocab_size is not None,
        "--normalization": arguments.normalization is not None,
    }
    given = [name for name, is_given in others.items() if is_given]
    given += given_flags(arguments)
    if given:
        raise UserError(
            f"{', '.join(given)} cannot be given with --config, whose settings decide; change these"
            " with --config-override"
        )

    from virtex.build.model import load_config

    data = load_config(arguments.config, arguments.config_override).data
    arguments.output = arguments.output or data.tokenizer_model
    arguments.vocab_size, arguments.normalization = data.vocab_size, data.text_normalization
    return data


def _read(arguments: argparse.Namespace, data: "Data | None", progress: Progress) -> Iterator[str]:
    """All captions of PATH or of a run's training split, unchanged; notes what is left out."""
    if data is not None:
        from virtex.build.sources import caption_records

        skipping = data.model_copy(update={"on_bad_image": "skip"})
        yield from _of_records(caption_records(skipping, "train"), progress)
        return
    from virtex.data.sources.caption_texts import read_captions

    layout, notes = _layout(arguments), list[str]()
    describe = partial(data_of, arguments, on_bad_image="skip")
    for path in arguments.paths:
        if path.is_dir() or arguments.val_share is not None:
            from virtex.build.captions import open_captions

            yield from _of_records(open_captions(path, describe), progress)
        else:
            yield from read_captions(path, layout, notes)
    for note in notes:
        progress.note(note)


def _layout(arguments: argparse.Namespace) -> "TableLayout":
    from virtex.data.sources.table_layout import TableLayout

    return TableLayout(
        image=arguments.image_column,
        caption=arguments.caption_column,
        split=arguments.split_column,
        separator=arguments.separator,
        encoding=arguments.encoding or "utf-8",
    )


def _of_records(records: "ReportedRecords", progress: Progress) -> Iterator[str]:
    from virtex.build.captions import captions_of

    for line in records.report:
        progress.note(line)
    bad: list[BadImage] = []
    yield from captions_of(records, bad.append)
    if bad:
        progress.note(f"{len(bad):,} samples cannot be read: {first_few(bad)}")


def _describe(tokenizer: "Tokenizer", captions: Sequence[str]) -> None:
    tokens = unknown = 0
    with Progress("encoding", len(captions), "captions") as progress:
        for caption in captions:
            ids = tokenizer.encode(tokenizer.normalize(caption))
            tokens += len(ids)
            unknown += ids.count(tokenizer.unk_index)
            progress.advance()
    _describe_changes(tokenizer.normalization, captions)
    print(f"vocabulary       {tokenizer.vocab_size:,} pieces")
    print(f"unknown tokens   {unknown / tokens:.3%} of {tokens:,}")
    print(f"caption length   {tokens / len(captions):.1f} tokens on average")
    for caption in captions[:_EXAMPLES]:
        normalized = tokenizer.normalize(caption)
        pieces = " ".join(tokenizer.token(index) for index in tokenizer.encode(normalized))
        print(f"example          {normalized}\n                 {pieces}")


def _describe_changes(normalization: "Normalization", captions: Sequence[str]) -> None:
    """Print the share of characters that the normalization changes."""
    from virtex.text.normalize import find_changes

    changes = find_changes(captions, normalization)
    shown = f": {', '.join(changes.examples)}" if changes.examples else ""
    print(
        f"normalization    {normalization}, changes {changes.changed / changes.characters:.3%} of"
        f" {changes.characters:,} characters besides case{shown}"
    )
    if changes.letters and normalization == "published":
        print("                 --normalization nfkc_lower keeps letters as they are")
