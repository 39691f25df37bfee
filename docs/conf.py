"""How Sphinx builds the documentation: pages in Markdown, the API reference from docstrings."""

import importlib

from flambe import __version__

project = "flambe"
author = "The flambe authors"
copyright = "The flambe authors"  # noqa: A001 (Sphinx's name)
release = version = __version__

# Names that are loaded at first use are no members of their modules until then.
LAZY = " .dataset .experiment .field .learn .metric .nn .sampler .testing"
for _name in LAZY.split(" "):
    _module = importlib.import_module(f"flambe{_name}")
    for _member in _module.__all__:
        setattr(_module, _member, getattr(_module, _member))

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_ivar = True
# A class is reached by more than one path: flambe.save is flambe.compile.save.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"flambe {release}"
html_static_path: list[str] = []
exclude_patterns: list[str] = []
# flambe's YAML has tags that highlighters of plain YAML don't know.
highlight_language = "none"
