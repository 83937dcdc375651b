"""How the pages here become a site: `make docs` runs every cell of them and writes build/docs, without network."""

import shutil
from pathlib import Path

import bayesgmm

DOCS = Path(__file__).parent
# Sphinx reads nothing outside this directory.
shutil.copytree(DOCS.parent / "notebooks", DOCS / "generated" / "notebooks", dirs_exist_ok=True)

project = "bayesgmm"
copyright = "bayesgmm developers"
version = release = bayesgmm.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_show_tb = True  # a cell that fails is a warning, and with -W an error, after all others have run
nb_execution_excludepatterns = ["generated/notebooks/*"]  # these have their outputs, which the tests make anew
nb_merge_streams = True
nb_output_stderr = "warn"  # a page on which something warns is not fit to read

default_role = "py:obj"
add_module_names = False
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # the docstrings say it better
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}  # scikit-learn's, made as it runs
numpydoc_show_class_members = False  # autodoc has them already

html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme = "pydata_sphinx_theme"
html_title = "bayesgmm"
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/bayesgmm/bayesgmm",
    "show_prev_next": False,
}
