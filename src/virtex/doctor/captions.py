"""Findings on the captions of a split."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from virtex.data.images import IMAGE_EXTENSIONS, BadImage
from virtex.data.records import Records
from virtex.doctor.findings import Finding, Severity
from virtex.doctor.languages import language, script
from virtex.text.scripts import is_unspaced

_DAMAGED = re.compile("\ufffd|[ÃÂ][\u0080-\u00bf¤¶¼Ÿ€©¨]|â€")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|&(?:[a-zA-Z]{2,8}|#\d+);|https?://|www\.")
_FILE_NAME = re.compile(rf"\S+\.(?:{'|'.join(sorted(IMAGE_EXTENSIONS))})", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_FREQUENT = 0.02
_CONSTANT = 0.2
_LEAST_REPEATS = 5
_FEW_WORDS = 30
_LEAST_CAPTIONS = 500


class Caption(NamedTuple):
    """A caption of the record at `position`, and the name of its image."""

    position: int
    image: str
    text: str


def read_captions(records: Records, positions: Iterable[int]) -> tuple[list[Caption], list[str]]:
    """The captions of the records at `positions`, and a line for each record that is damaged."""
    captions, damaged = [], []
    for position in positions:
        try:
            record = records[position]
        except BadImage as error:
            damaged.append(f"{error.picture}: {error.reason}")
            continue
        captions += [Caption(position, str(record.image), text) for text in record.captions]
    return captions, damaged


def caption_findings(split: str, captions: Sequence[Caption]) -> Iterator[Finding]:
    """What is wrong with captions, or remarkable."""
    if not captions:
        return
    yield _variety(split, captions)
    yield from _repeated(split, captions)
    yield from _identical(split, captions)
    for test in _TESTS:
        found = [caption for caption in captions if test.finds(caption)]
        if found:
            examples = [f"{caption.image}: {caption.text!r:.120}" for caption in found]
            text = f"{split} captions {test.what}"
            yield Finding.of_items(
                test.kind,
                test.severity,
                text,
                examples,
                total=len(captions),
                advice=test.advice,
            )
    yield from _mixed(split, captions, "script", "mixed-scripts")
    yield from _mixed(split, captions, "language", "mixed-languages")


def words_of(text: str) -> list[str]:
    """The words of a caption in lower case; characters where a script has no spaces."""
    words = []
    for word in _WORD.findall(text.lower()):
        words += list(word) if is_unspaced(word[0]) else [word]
    return words


def _variety(split: str, captions: Sequence[Caption]) -> Finding:
    """How many different words and pairs of words there are (distinct-1 and distinct-2)."""
    singles: Counter[str] = Counter()
    pairs: set[tuple[str, str]] = set()
    number_of_pairs = 0
    for caption in captions:
        words = words_of(caption.text)
        singles.update(words)
        pairs.update(pairwise(words))
        number_of_pairs += max(len(words) - 1, 0)
    total = singles.total()
    images = len({caption.position for caption in captions})
    text = (
        f"{split}: {len(captions):,} captions of {images:,} images,"
        f" {total / len(captions):.1f} words each; {len(singles):,} different words"
        f" (distinct-1 {len(singles) / max(total, 1):.3f},"
        f" distinct-2 {len(pairs) / max(number_of_pairs, 1):.3f})"
    )
    if len(singles) < _FEW_WORDS and len(captions) >= _LEAST_CAPTIONS:
        return Finding(
            "few-words", "warning", text, "captions from a template teach little; are they labels?"
        )
    return Finding("captions", "note", text)


def _repeated(split: str, captions: Sequence[Caption]) -> Iterator[Finding]:
    """Captions that many images share."""
    first: dict[str, Caption] = {}
    images: Counter[str] = Counter()
    for position, text in {(each.position, _plain(each.text)) for each in captions}:
        images[text] += 1
        first.setdefault(text, Caption(position, "", text))
    total = len({caption.position for caption in captions})
    least = max(_LEAST_REPEATS, _FREQUENT * total)
    frequent = [(text, count) for text, count in images.most_common() if count >= least]
    if frequent:
        share = frequent[0][1] / total
        yield Finding.of_items(
            "repeated-captions",
            "problem" if share >= _CONSTANT else "warning",
            f"{split} captions that {math.ceil(least):,} images or more share, one of them"
            f" {share:.1%} of all",
            [f"{text!r:.120}: {count:,} images" for text, count in frequent],
            advice="if they are placeholders such as 'no description', remove these rows",
        )


def _plain(text: str) -> str:
    return " ".join(words_of(text)) or text.strip()


def _identical(split: str, captions: Sequence[Caption]) -> Iterator[Finding]:
    """Images with several captions that are all the same."""
    of_image: dict[int, list[Caption]] = {}
    for caption in captions:
        of_image.setdefault(caption.position, []).append(caption)
    several = [group for group in of_image.values() if len(group) > 1]
    same = [group for group in several if len({_plain(each.text) for each in group}) == 1]
    if same:
        yield Finding.of_items(
            "identical-captions",
            "warning",
            f"{split} images with several captions that are all the same",
            [f"{group[0].image}: {group[0].text!r:.120}" for group in same],
            total=len(several),
            advice="repeated captions add nothing; keep each once",
        )


def _is_file_name(caption: Caption) -> bool:
    text = caption.text.strip()
    stem = PurePath(caption.image).stem
    return bool(_FILE_NAME.fullmatch(text)) or (text == stem and len(words_of(stem)) == 1)


class _Test(NamedTuple):
    """A test of single captions, and the finding on those that it finds."""

    kind: str
    severity: Severity
    what: str
    finds: Callable[[Caption], bool]
    advice: str


_TESTS = (
    _Test(
        "damaged-characters",
        "problem",
        "with characters that were decoded wrongly",
        lambda caption: _DAMAGED.search(caption.text) is not None,
        "the text was read in another encoding than it was written in; export it again, or set"
        " DATA.ENCODING",
    ),
    _Test(
        "control-characters",
        "warning",
        "with control characters",
        lambda caption: any(
            unicodedata.category(character) == "Cc" and not character.isspace()
            for character in caption.text
        ),
        "remove them from the text",
    ),
    _Test(
        "markup",
        "warning",
        "with markup or addresses",
        lambda caption: _MARKUP.search(caption.text) is not None,
        "remove tags, entities and addresses from the text",
    ),
    _Test(
        "file-names",
        "warning",
        "that are names of files",
        _is_file_name,
        "another column may hold the captions; set DATA.COLUMNS.CAPTION",
    ),
    _Test(
        "no-letters",
        "warning",
        "without a letter",
        lambda caption: script(caption.text) is None,
        "numbers or punctuation alone describe no image; remove or replace them",
    ),
)


def _mixed(split: str, captions: Sequence[Caption], of: str, kind: str) -> Iterator[Finding]:
    """Captions whose script or language is not that of most."""
    find = script if of == "script" else language
    names = [find(caption.text) for caption in captions]
    counts = Counter(name for name in names if name is not None)
    if not counts:
        return
    main = counts.most_common(1)[0][0]
    others = [
        f"{caption.image}: {caption.text!r:.120} ({name})"
        for caption, name in zip(captions, names, strict=True)
        if name not in (None, main)
    ]
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(6))
    if others:
        yield Finding.of_items(
            kind,
            "warning",
            f"{split} captions that seem to be of another {of} than the others ({shown})",
            others,
            total=len(captions),
            advice=f"remove them; if several {of}s are meant, make a larger vocabulary",
        )
    else:
        yield Finding(f"{of}", "note", f"{split}: the {of} of the captions seems to be {main}")
