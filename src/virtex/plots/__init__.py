"""Plots for people: contact sheets, attention panels and their text."""
