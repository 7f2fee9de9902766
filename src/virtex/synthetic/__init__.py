"""Synthetic scenes: images of coloured shapes with five true captions each, and their file trees.

Convention: a scene is in the unit square (x to the right, y down, lengths as a fraction of its
side), so that it can be drawn at any size; it is a function of (seed, split, index) alone.
"""
