"""Data: image files and captions on disk, to batches.

Convention: an image is uint8 (H, W, 3) RGB until it is on the device, and everything random about
an example is a function of (seed, epoch, index).
"""
