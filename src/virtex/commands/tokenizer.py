"""`virtex tokenizer`: a SentencePiece vocabulary from captions."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import local_path
from virtex.commands.layout_arguments import CAPTION_FLAGS, add_layout_arguments
from virtex.commands.progress import Progress
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.text.tokenizer import Tokenizer

_EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `virtex tokenizer`."""
    parser.add_argument(
        "files",
        type=local_path,
        nargs="+",
        metavar="FILE",
        help="file of captions: COCO annotations (.json), a table (.csv, .tsv) or plain text with "
        "one caption per line (.txt)",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="FILE",
        help="SentencePiece model to write, for DATA.TOKENIZER_MODEL",
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=10000,
        metavar="N",
        help="size of the vocabulary, for DATA.VOCAB_SIZE (default: %(default)s)",
    )
    layout = parser.add_argument_group("tables")
    add_layout_arguments(layout, CAPTION_FLAGS)
    layout.add_argument("--column", dest="caption_column", help=argparse.SUPPRESS)
    parser.add_argument(
        "--overwrite", action="store_true", help="overwrite the output file if it exists"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, write and describe the vocabulary; raises `UserError`."""
    # Imported here, so that `--help` answers at once.
    from virtex.data.sources.caption_texts import read_captions
    from virtex.data.sources.table_layout import TableLayout
    from virtex.files import write_whole
    from virtex.text.tokenizer import Tokenizer, train

    output: Path = arguments.output
    if output.is_dir():
        raise UserError(f"--output {output} is a directory; name a file in it")
    if output.exists() and not arguments.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or another --output")
    start = time.monotonic()
    layout = TableLayout(
        caption=arguments.caption_column,
        split=arguments.split_column,
        separator=arguments.separator,
        encoding=arguments.encoding or "utf-8",
    )
    captions: list[str] = []
    notes: list[str] = []
    with Progress("reading", None, "captions") as progress:
        for path in arguments.files:
            for caption in read_captions(path, layout, notes):
                captions.append(caption)
                progress.advance()
    described = [caption for caption in captions if caption.strip()]
    if not described:
        raise UserError(f"no captions in {', '.join(map(str, arguments.files))}")
    tokenizer = Tokenizer.from_bytes(train(described, arguments.vocab_size))
    write_whole(output, tokenizer.model_bytes)
    blank = len(captions) - len(described)
    for note in notes:
        print(f"note             {note}")
    print(f"captions         {len(described):,} ({blank:,} blank ones skipped)")
    _describe(tokenizer, described)
    print(f"written          {output} in {time.monotonic() - start:.1f} s")
    return 0


def _describe(tokenizer: "Tokenizer", captions: Sequence[str]) -> None:
    from virtex.text.normalize import normalize_caption

    tokens = unknown = 0
    with Progress("encoding", len(captions), "captions") as progress:
        for caption in captions:
            ids = tokenizer.encode(normalize_caption(caption))
            tokens += len(ids)
            unknown += ids.count(tokenizer.unk_index)
            progress.advance()
    print(f"vocabulary       {tokenizer.vocab_size:,} pieces")
    print(f"unknown tokens   {unknown / tokens:.3%} of {tokens:,}")
    print(f"caption length   {tokens / len(captions):.1f} tokens on average")
    for caption in captions[:_EXAMPLES]:
        normalized = normalize_caption(caption)
        pieces = " ".join(tokenizer.token(index) for index in tokenizer.encode(normalized))
        print(f"example          {normalized}\n                 {pieces}")
