"""Findings on captions as the tokens of a vocabulary."""

from collections import Counter
from collections.abc import Iterator, Sequence

from virtex.doctor.captions import Caption
from virtex.doctor.findings import Finding
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.text.tokenizer import Tokenizer

_MUCH_UNKNOWN = 0.05
_UNKNOWN = 0.001
_MANY_CUT = 0.01


def vocabulary_findings(
    split: str, captions: Sequence[Caption], tokenizer: Tokenizer, lengths: CaptionTokens
) -> Iterator[Finding]:
    """Unknown and unused tokens, and captions that are longer than the limit of `lengths`."""
    max_length = lengths.max_length
    used: Counter[int] = Counter()
    unknown, cut, lost = [], [], 0
    for caption in captions:
        ids = tokenizer.encode(tokenizer.normalize(caption.text))
        used.update(ids)
        if tokenizer.unk_index in ids:
            unknown.append(caption)
        excess = lengths.count_tokens(caption.text) - max_length
        if excess > 0:
            cut.append(caption)
            lost += excess
    total = used.total()
    if not total:
        return
    share = used[tokenizer.unk_index] / total
    if share:
        yield Finding.of_items(
            "unknown-tokens",
            "problem" if share >= _MUCH_UNKNOWN else "warning" if share >= _UNKNOWN else "note",
            f"{split} captions with characters that the vocabulary lacks, {share:.2%} of all"
            " tokens",
            [f"{each.image}: {tokenizer.normalize(each.text)!r:.120}" for each in unknown],
            total=len(captions),
            advice="make the vocabulary from these captions with `virtex tokenizer`",
        )
    many = len(cut) >= _MANY_CUT * len(captions)
    if cut:
        yield Finding.of_items(
            "cut-captions",
            "warning" if many else "note",
            f"{split} captions that are longer than DATA.MAX_CAPTION_LENGTH {max_length}, which"
            f" cuts {lost / total:.2%} of all tokens",
            [f"{each.image}: {each.text!r:.120}" for each in cut],
            total=len(captions),
            advice="set DATA.MAX_CAPTION_LENGTH higher, or DATA.LONG_CAPTIONS to sentences",
        )
    unused = tokenizer.vocab_size - len(used)
    yield Finding(
        "vocabulary",
        "note",
        f"{split}: {total / len(captions):.1f} tokens a caption; {unused:,} of"
        f" {tokenizer.vocab_size:,} pieces of the vocabulary do not occur",
    )
