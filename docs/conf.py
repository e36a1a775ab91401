"""How the site is built: ``sphinx-build -W docs site``. No network is needed."""

from lightning_adv import __version__

project = "lightning_adv"
author = "the lightning_adv authors"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["results/README.md"]
html_theme = "furo"
html_title = f"lightning_adv {version}"
html_static_path = ["static"]
html_css_files = ["tables.css"]

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
