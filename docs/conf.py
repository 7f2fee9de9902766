"""The book: `sphinx-build -W docs OUTPUT`, with the extra `docs`."""

from virtex import __version__

project = "virtex"
author = "The virtex developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"virtex {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
