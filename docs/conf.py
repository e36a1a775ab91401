"""How the site is built: ``sphinx-build -W docs site``. No network is needed."""

from typing import Any

from docutils.nodes import Node, SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

from lightning_adv import __version__

project = "lightning_adv"
author = "the lightning_adv authors"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["results/README.md"]
html_theme = "furo"
html_title = f"lightning_adv {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
# The notebooks are stored without outputs, and the tests run them: here they are read, and not run.
nb_execution_mode = "off"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of named tuples are documented once, by their class

# Every link within the site is checked; what other servers answer is not a property of this project.
linkcheck_ignore = [r"https?://.*"]


# Formulas are MathML, which browsers draw by themselves: MathJax would be loaded from another server.
html_math_renderer = "mathml"


def inline_math(translator: Any, node: Node) -> None:
    """Write a formula within a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def displayed_math(translator: Any, node: Node) -> None:
    """Write a formula in a line of its own."""
    translator.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def skip_fields(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which stand in the text of their classes."""
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """Tell Sphinx of the renderer, and of what is not listed."""
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    app.connect("autodoc-skip-member", skip_fields)
