"""How Sphinx builds these pages; `make docs` does it. They build without a network."""

from importlib.metadata import version as version_of

project = "dromon"
author = "The dromon authors"
project_copyright = "2026, The dromon authors"
release = version = version_of("dromon")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Single backticks, here and in docstrings, are links where the object is known, and code elsewhere.
default_role = "obj"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"dromon {release}"
