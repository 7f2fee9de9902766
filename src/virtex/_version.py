"""The version of the package, equal to that of pyproject.toml."""

__version__ = "2.0.0.dev0"
