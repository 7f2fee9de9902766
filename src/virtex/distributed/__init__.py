"""Processes: starting, connecting, watching and stopping them."""
