"""The share of the images that are drawn for validation where no split is given."""

from virtex.doctor.detected import Finding, counted

_WANTED, _MOST = 200, 5000
"""Validation images: enough for a loss with little noise, and more than that only costs time."""
_SMALL, _LARGE = 0.02, 0.1


def share_finding(images: int | None, groups: int | None = None) -> Finding:
    """`DATA.VAL_SHARE` for so many images, or for an unknown number, in so many groups if any."""
    if images is None:
        return Finding("DATA.VAL_SHARE", _SMALL, "there is no validation split")
    share = validation_share(images)
    reason = f"there is no validation split; of {counted(images, 'image')}, about"
    reason += f" {max(1, round(share * images)):,} are drawn"
    if groups is not None and groups * share < 3:
        share = min(0.3, round(3 / groups, 2))
        reason += f", as whole groups, of which there are only {groups:,}"
    return Finding("DATA.VAL_SHARE", share, reason)


def validation_share(images: int) -> float:
    """A tenth of few images, so many that 200 are drawn of more, and at most 5,000 of very many."""
    share = max(_WANTED / images, min(_SMALL, _MOST / images))
    return float(f"{min(_LARGE, share):.2g}")
