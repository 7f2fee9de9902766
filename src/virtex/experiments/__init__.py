"""Several runs: sweeps, SLURM jobs and comparisons."""
