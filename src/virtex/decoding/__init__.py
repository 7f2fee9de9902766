"""Captions from a decoder: search over next-token scores, and images to text.

Convention: a hypothesis is the tokens after [SOS]; its score is the sum of their log-probabilities.
"""
