"""How Sphinx builds the site: ``make docs``.

The source folder is the whole repository, so that a page links to a file as it does where the
repository is read: relative links work in both places, and nothing is copied.  `include_patterns`
says which files are pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "wgpu_q4"
copyright = "the wgpu_q4 authors"

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "benchmarks/README.md",
    "benchmarks/articles/*.md",
    "examples/*.ipynb",
    "vulkan_glsl/README.md",
    "webgpu_wgsl/README.md",
    "wgsl/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
# Folders without pages.  Sphinx walks all others, and a virtual environment is large.
exclude_patterns = [
    *(".*", "build", "dist", "requirements", "scripts", "tests", "tools", "wgpu_q4"),
    *("benchmarks/results", "examples/web"),
    "**/.ipynb_checkpoints",
]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "tools.docs.command_help",
    "tools.docs.front_page",
    "tools.docs.short_types",
]

# Pages

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3
# The notebooks are shown with the outputs that are committed; `make test` runs them.
nb_execution_mode = "off"
nb_merge_streams = True

# Reference

# A name in single backticks is a link, if the reference has it.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name
    for name in (
        *("Accuracy", "ArrayLike", "Convention", "DTypeLike", "FloatDtype", "Layout", "Rule"),
        *("ScalesDtype", "Storage", "StrPath", "Verify"),
    )
}
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
# A build asks no other site, so types of other packages lead nowhere, and neither do those of this
# package that a user never makes.  The public ones, `wgpu_q4.Name`, must.
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    ("py:class", r"(?!wgpu_q4\.[A-Z]).*"),
    ("py:exc", r"(?!wgpu_q4\.[A-Z]).*"),
]

# Looks

pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "wgpu_q4"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f6fc4",
        "color-brand-content": "#1f6fc4",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6cb0f5",
        "color-brand-content": "#6cb0f5",
        # As in the figures.
        "color-background-primary": "#0d1117",
        "color-background-secondary": "#161b22",
    },
}
# Prompts and outputs are not part of a command.
copybutton_prompt_text = r">>> |\.\.\. |\$ |In \[\d*\]: "
copybutton_prompt_is_regexp = True

# `make docs-links`: addresses on other sites, and no others.
linkcheck_ignore = ["http://localhost"]
linkcheck_timeout = 20
linkcheck_workers = 8
