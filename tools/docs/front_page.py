"""An ``index.html`` at the root of the site, which sends a visitor to the landing page.

The pages keep the paths that they have in the repository, so the landing page is in ``docs/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={target}">
<p><a href="{target}">{title}</a></p>
"""


def write(app: Any, failure: Exception | None) -> None:
    """Write the page, if the build succeeded and made HTML."""
    if failure is None and app.builder.format == "html":
        target = app.builder.get_target_uri(app.config.root_doc)
        page = _PAGE.format(title=app.config.html_title, target=target)
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register the step with Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
