"""Optimization: parameter groups, learning-rate schedules, Lookahead."""
