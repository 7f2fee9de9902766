"""Metrics of captions against reference captions, in Python.

A caption becomes tokens once; BLEU, ROUGE-L and CIDEr-D are functions of tokens or of their n-grams
and equal the published COCO caption evaluation.
"""

from virtex.metrics.scoring import CaptionScores, caption_scores

__all__ = ["CaptionScores", "caption_scores"]
