"""Evaluation of features and captions."""
