"""The training loop, the run around it, its log, precision and progress."""
