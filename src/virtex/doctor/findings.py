"""Findings of a checkup, and their form as text and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from virtex.errors import printable

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
_SHOWN = 5
_KEPT = 100


@dataclass(frozen=True)
class Finding:
    """Something about data or machine that a user should know.

    `kind` is a stable identifier, such as `missing-images`. A `problem` stops a run or spoils its
    result, a `warning` may do so, and a `note` is for information. `count` is the number of items
    that it is about, of `total` ones, and `examples` has up to a hundred of them; `advice` says
    what to do.
    """

    kind: str
    severity: Severity
    text: str
    advice: str = ""
    examples: tuple[str, ...] = ()
    count: int | None = None
    total: int | None = None

    @classmethod
    def of_items(
        cls,
        kind: str,
        severity: Severity,
        text: str,
        items: Sequence[object],
        *,
        total: int | None = None,
        advice: str = "",
    ) -> "Finding":
        """A finding about items, which the text describes in the plural."""
        examples = tuple(printable(item) for item in items[:_KEPT])
        return cls(kind, severity, text, advice, examples, len(items), total)

    def lines(self, root: str = "") -> Iterator[str]:
        """The finding as text; with a few examples and advice unless it is a note.

        Paths below the directory `root` are shortened.
        """
        number = "" if self.count is None else f": {self.count:,}"
        of = "" if self.total is None else f" of {self.total:,}"
        yield f"{self.severity:8} {self.text}{number}{of} [{self.kind}]"
        if self.severity == "note":
            return
        for example in self.examples[:_SHOWN]:
            yield f"           {example.replace(root, '') if root else example}"
        more = (self.count or 0) - _SHOWN
        if self.examples and more > 0:
            yield f"           … and {more:,} more"
        if self.advice:
            yield f"         → {self.advice}"


@dataclass(frozen=True)
class BadImages:
    """What becomes of items that cannot be used: whether `DATA.ON_BAD_IMAGE` skips them."""

    skipped: bool

    @property
    def severity(self) -> Severity:
        return "warning" if self.skipped else "problem"

    @property
    def otherwise(self) -> str:
        """The end of an advice: what to do, or what a run does, without a repair."""
        if self.skipped:
            return "; otherwise they are left out (DATA.ON_BAD_IMAGE is skip)"
        return ", or set DATA.ON_BAD_IMAGE to skip, which leaves them out"


def as_json(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """The findings as plain values."""
    return [asdict(finding) for finding in findings]
