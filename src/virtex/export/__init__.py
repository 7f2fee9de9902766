"""Weights from and for other programs: the only place that knows names that are not our own."""
