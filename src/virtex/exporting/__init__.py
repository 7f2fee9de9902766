"""Conversion of weights for other programs."""
