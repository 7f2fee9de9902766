"""COCO's figures of boxes and masks, and its masks, by pycocotools: the extra `detection`."""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtex.data.images import PixelArray
from virtex.errors import UserError
from virtex.evaluation.figures import Figure

Judged = Literal["box", "segm"]

METRICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)
"""The figures in the order of COCO's summary."""


def check_pycocotools() -> None:
    """Raise `UserError` if pycocotools is not installed."""
    try:
        import pycocotools.mask  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            "detection needs a further package, pycocotools: "
            "pip install 'virtex-pretraining[detection]'"
        ) from error


def polygons_mask(
    polygons: Sequence[npt.NDArray[np.floating[Any]]], size: tuple[int, int]
) -> PixelArray:
    """The pixels inside any of the polygons (2P,): (H, W) uint8 of 0 and 1."""
    from pycocotools import mask

    codes = mask.frPyObjects([polygon.tolist() for polygon in polygons], *size)
    with warnings.catch_warnings():
        # pycocotools was written for numpy 1.
        warnings.simplefilter("ignore", DeprecationWarning)
        found: PixelArray = mask.decode(mask.merge(codes))
    return found


def encode_mask(pixels: PixelArray) -> dict[str, Any]:
    """A mask (H, W) of 0 and 1 in COCO's run-length code, as JSON holds it."""
    from pycocotools import mask

    code: dict[str, Any] = mask.encode(np.asfortranarray(pixels))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


def coco_figures(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], judged: Judged
) -> tuple[list[Figure], str]:
    """COCO's twelve figures in percent, and the lines that pycocotools prints of them.

    `detections` hold `image_id`, `category_id`, `bbox` (x, y, width, height), `score` and for masks
    `segmentation`. A figure without any object to find, -1 in the lines, is left out.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    printed = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        of_truth, of_detections = COCO(), COCO()
        of_truth.dataset = {**truth, "annotations": [dict(one) for one in truth["annotations"]]}
        of_detections.dataset = {
            "images": truth["images"],
            "categories": truth["categories"],
            "annotations": [
                {"id": n, "iscrowd": 0, "area": _area(one, judged), **one}
                for n, one in enumerate(detections, start=1)
            ],
        }
        of_truth.createIndex()
        of_detections.createIndex()
        evaluation = COCOeval(of_truth, of_detections, "bbox" if judged == "box" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        with contextlib.redirect_stdout(printed):
            evaluation.summarize()
    figures = [
        Figure(f"{judged}_{metric}", 100 * float(value))
        for metric, value in zip(METRICS, evaluation.stats, strict=True)
        if value >= 0
    ]
    return figures, printed.getvalue().rstrip()


def _area(detection: Mapping[str, Any], judged: Judged) -> float:
    if judged == "box":
        return float(detection["bbox"][2] * detection["bbox"][3])
    from pycocotools import mask

    return float(mask.area(detection["segmentation"]))
