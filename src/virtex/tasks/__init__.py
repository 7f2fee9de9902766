"""Pretraining tasks, a file each: the loader's half (encode, collate) and the device's half (losses)."""
