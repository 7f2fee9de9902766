"""The share of the images that are drawn for validation where no split is given."""

from virtex.doctor.detected import Choice, counted

_WANTED, _MOST = 200, 5000
"""Validation images: enough for a loss with little noise, and more than that only costs time."""
_SMALL, _LARGE = 0.02, 0.1
NO_SPLIT = "there is no validation split"
"""The reason of a share for an unknown number of images."""


def share_choice(images: int | None, groups: int | None = None) -> Choice:
    """`DATA.VAL_SHARE` for so many images, or for an unknown number, in so many groups if any."""
    if images is None:
        return Choice("DATA.VAL_SHARE", _SMALL, NO_SPLIT)
    share, remark = validation_share(images), ""
    if groups is not None and groups * share < 3:
        share = min(0.3, round(3 / groups, 2))
        remark = f", as whole groups, of which there are only {groups:,}"
    reason = f"{NO_SPLIT}; of {counted(images, 'image')}, about"
    reason += f" {max(1, round(share * images)):,} are drawn{remark}"
    return Choice("DATA.VAL_SHARE", share, reason)


def validation_share(images: int) -> float:
    """A tenth of few images, so many that 200 are drawn of more, and at most 5,000 of very many."""
    share = max(_WANTED / images, min(_SMALL, _MOST / images))
    return float(f"{min(_LARGE, share):.2g}")
