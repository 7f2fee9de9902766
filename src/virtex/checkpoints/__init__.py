"""Checkpoint files: written, read and checked; and the run directory that holds them."""
