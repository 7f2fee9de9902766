"""Train visual backbones from captions."""

__version__ = "2.0.0.dev0"
