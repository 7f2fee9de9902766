"""Tar shards: writing, indexing and reading them."""
