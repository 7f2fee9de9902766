"""The machine's side of a run: processes and devices, precision, checkpoints, the journal."""
