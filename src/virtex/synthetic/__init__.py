"""Scenes: drawn pictures of coloured shapes with five true captions each, and the trees they fill.

Convention: a scene lives in the unit square (x to the right, y down, lengths as a fraction of its
side), so that it can be drawn at any size; it is a function of (seed, split, index) alone.
"""
