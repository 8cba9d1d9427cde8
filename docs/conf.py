"""How Sphinx builds the book: `stepgrpo site` copies this folder, adds what the library writes, and runs Sphinx."""

import inspect
import sys
from pathlib import Path

import stepgrpo_lab

project = "stepgrpo_lab"
copyright = "the stepgrpo_lab authors, Apache-2.0"
release = stepgrpo_lab.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["interface.md", "_generated"]  # the book's own reference says more; included elsewhere
nb_execution_mode = "off"  # the outputs were stored when the notebooks were built
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure", "mystnb.unknown_mime_type", "myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

mathjax_path = "mathjax/tex-mml-chtml.js"  # served from here, as everything is
html_theme = "furo"
html_title = "stepgrpo_lab"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

_ROOT = Path(stepgrpo_lab.__file__).parents[1]


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of a name can be read."""
    module = sys.modules.get(info["module"])
    try:
        value = inspect.unwrap(getattr(module, info["fullname"].split(".")[0]))
        path = Path(inspect.getsourcefile(value) or "").resolve().relative_to(_ROOT)
        line = inspect.getsourcelines(value)[1]
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return f"https://github.com/stepgrpo-lab/stepgrpo-lab/blob/main/{path.as_posix()}#L{line}"
