"""The workshop of the documentation site: what Sphinx is taught, figures, screenshots.

* `command_help`  a directive that shows the help of a ``wgpu-q4`` command
* `front_page`    an address for the site's root, and a class for the landing page
* `figures`       ``python -m tools.docs.figures`` draws `docs/figures/`
* `screenshots`   ``python -m tools.docs.screenshots`` takes `docs/screenshots/`
"""
