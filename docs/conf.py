"""Sphinx: pages in Markdown, the API from its docstrings, the gallery from examples/gallery."""

import importlib.util
import sys
from pathlib import Path

import xsmmconv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import accuracy  # noqa: E402
import measured  # noqa: E402
import pictures  # noqa: E402

pictures.draw_all(HERE / "_pictures")
measured.draw_all(HERE / "_pictures")
accuracy.draw_all(HERE / "_pictures")

project = "xsmmconv"
copyright = "xsmmconv developers"
version = release = xsmmconv.__version__
html_theme = "furo"
html_title = f"xsmmconv {release}"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**.ipynb", "gallery/**.py", "gallery/**.md5"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nitpicky = False

autodoc_typehints = "none"  # the docstrings say it with shapes
if not importlib.util.find_spec("torch"):  # the docstrings are there without it
    autodoc_mock_imports = ["torch", "xsmmconv.torch._operators"]
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL06", "GL07", "PR01", "PR02", "PR10", "RT02", "SS01"}
numpydoc_validation_exclude = {r"\.Plan$", r"\.Plan\."}

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
}
