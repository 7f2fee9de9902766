"""Protocols that judge frozen features: each maps two splits to figures.

Classifiers are fitted on the CPU in float64. The same splits and seed give the same figures,
whatever the number of threads.
"""
