"""Sphinx's settings; `make docs` builds with them, offline and without warnings."""

project = "Nebula classifier"
author = "The nebula classifier's founders"
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
root_doc = "docs/index"
exclude_patterns = ["**/.ipynb_checkpoints"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "sidebar_width": "260px"}
html_show_copyright = False

nb_execution_mode = "off"  # the notebooks as they are committed
nb_ipywidgets_js = {}  # nothing from elsewhere; the committed page is a picture
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say more
numpydoc_show_class_members = False
