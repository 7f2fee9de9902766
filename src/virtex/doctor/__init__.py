"""Findings on data, captions, vocabulary and machine, before a run needs them."""
