"""Protocols that predict boxes, masks or a class for each pixel: detection and segmentation.

Convention: boxes are (x1, y1, x2, y2) in continuous pixel coordinates, from the upper left corner
of the first pixel at (0, 0); labels count from 1, as 0 is the background.
"""
