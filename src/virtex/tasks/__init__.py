"""Pretraining tasks, a file each: a loader's half (encode, collate), a device's half (losses)."""
