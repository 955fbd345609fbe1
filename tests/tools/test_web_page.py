"""The page that ``wgpu-q4 web`` writes, in a headless Chromium, with real clicks."""

from __future__ import annotations

import base64
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Route, expect

import wgpu_q4
from wgpu_q4.commands.web import write
from wgpu_q4.commands.web_cases import encode

VOCAB, EMBED_DIM, GROUP_SIZE = 2500, 96, 32
WORDS = {"Ġriver": 7, "bank": 2499}


@pytest.fixture(scope="module")
def weight() -> wgpu_q4.Q4Weight:
    rng = np.random.default_rng(5)
    return wgpu_q4.quantize(rng.standard_normal((VOCAB, EMBED_DIM), np.float32), GROUP_SIZE)


@pytest.fixture(scope="module")
def matrix(weight: wgpu_q4.Q4Weight) -> NDArray[np.float64]:
    """The matrix that the bytes stand for: the low nibble of a byte comes first."""
    nibbles = np.stack([weight.packed & 15, weight.packed >> 4], axis=-1).reshape(VOCAB, -1)
    return (nibbles - 8.0) * np.repeat(weight.scales.astype(np.float64), GROUP_SIZE, axis=1)


@pytest.fixture(scope="module")
def folder(weight: wgpu_q4.Q4Weight, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("web")
    wgpu_q4.save_file({"embed_tokens": weight, "lm_head": weight}, home / "tied.safetensors")
    tokenizer = home / "tokenizer.json"
    tokenizer.write_text(json.dumps({"model": {"vocab": WORDS}, "added_tokens": []}))
    write([home / "tied.safetensors"], home / "page", tokenizer)
    return home / "page"


def look_up(page: Page, text: str, token: int) -> None:
    page.fill("#token", text)
    page.click("#look")
    expect(page.locator("#caption")).to_have_text(re.compile(rf"^{token}\b"))


def nearest(page: Page) -> list[int]:
    return [
        int(text)
        for text in page.locator("#nearest button").evaluate_all(
            "buttons => buttons.map((button) => button.dataset.id)"
        )
    ]


def test_the_page_says_where_it_runs_and_what_it_holds(
    page: Page, weight: wgpu_q4.Q4Weight
) -> None:
    assert "swiftshader" in page.inner_text("#adapter").lower()
    assert page.inner_text("#resident") == f"{weight.nbytes:,} bytes"
    assert page.inner_text("#matrix").startswith("embed_tokens = lm_head (tied.safetensors): 2500")
    assert page.is_hidden("#progress")


@pytest.mark.parametrize(("text", "token"), [("0", 0), ("2499", 2499), ("river", 7)])
def test_an_embedding_has_the_bits_of_rounded_float64(
    page: Page, matrix: NDArray[np.float64], text: str, token: int
) -> None:
    look_up(page, text, token)
    with page.expect_download() as saved:
        page.click("#download")
    assert saved.value.suggested_filename == f"embedding-{token}.f32"
    assert saved.value.path().read_bytes() == matrix[token].astype(np.float32).tobytes()


def test_the_picture_is_blue_below_zero_and_red_above(
    page: Page, matrix: NDArray[np.float64]
) -> None:
    look_up(page, "7", 7)
    pixels = page.evaluate(
        "() => { const c = document.getElementById('picture');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"
    )
    red, _, blue, _ = np.array(pixels[: 4 * EMBED_DIM]).reshape(-1, 4).T
    np.testing.assert_array_equal(np.sign(red - blue), np.sign(np.round(matrix[7], 9)))


def test_nearest_tokens_are_those_of_numpy(page: Page, matrix: NDArray[np.float64]) -> None:
    look_up(page, "river", 7)
    lengths = np.linalg.norm(matrix, axis=1)

    def cosines(token: int) -> NDArray[np.float64]:
        found: NDArray[np.float64] = matrix @ matrix[token] / (lengths * lengths[token])
        return found

    first = np.argsort(-cosines(7))[:8]
    assert nearest(page) == first.tolist()
    assert page.locator("#nearest button").first.inner_text() == "7 “ river”"
    second = int(first[1])
    page.locator("#nearest button").nth(1).click()
    expect(page.locator("#caption")).to_have_text(re.compile(rf"^{second}\b"))
    assert nearest(page) == np.argsort(-cosines(second))[:8].tolist()
    shown = page.locator("#nearest li").nth(3).inner_text()
    assert shown.endswith(f" {np.sort(cosines(second))[-4]:.3f}")


def test_each_call_is_timed(page: Page) -> None:
    before = [int(text) for text in page.locator("#times td:last-child").all_inner_texts()]
    look_up(page, "11", 11)
    after = [int(text) for text in page.locator("#times td:last-child").all_inner_texts()]
    assert after == [count + 1 for count in before]
    assert len(after) == 2
    shown = page.locator("#times tr").first.inner_text()
    assert re.fullmatch(r"embedding of one id(\s+\d+\.\d\d ms){3}\s+\d+", shown)


@pytest.mark.parametrize(
    ("text", "said"),
    [("2500", "Ids are 0 to 2499."), ("rivers", "“rivers” is not one token of this vocabulary")],
)
def test_what_is_no_token_is_said(page: Page, text: str, said: str) -> None:
    page.fill("#token", text)
    page.click("#look")
    expect(page.locator("#status.problem")).to_contain_text(said)
    look_up(page, "12", 12)
    expect(page.locator("#status")).to_have_text("Ready.")


def verdict(page: Page) -> str:
    page.click("#parity")
    expect(page.locator("#verdict")).to_have_text(re.compile("."))
    return page.inner_text("#verdict")


def test_the_parity_button_is_green(page: Page, folder: Path) -> None:
    count = len(json.loads((folder / "cases.json").read_text()))
    assert count > 10
    assert verdict(page) == f"All {count} cases are right."
    assert page.locator("#cases .green").count() == count
    assert page.locator("#cases .red").count() == 0


def damaged(chromium: Browser, address: str, **texts: object) -> Page:
    """Return the page with some of its files changed, by their names without ``.json``."""
    opened = chromium.new_page()
    for name, content in texts.items():
        answer = partial(Route.fulfill, json=content)
        opened.route(f"**/{name}.json", answer)
    opened.goto(address)
    expect(opened.locator("#status:not(:has-text('…')):not(:has-text('Loading'))")).to_be_visible()
    return opened


def test_what_is_damaged_is_red(chromium: Browser, address: str, folder: Path) -> None:
    """An embedding that subtracts 7, a top-k that no browser compiles, a logit and a best id that
    are not those of the reference; the rest is right."""
    kernels = json.loads((folder / "kernels.json").read_text())
    for name, kernel in kernels["modules"].items():
        damage = ("- 8", "- 7") if name.startswith("embedding") else ("fn main(", "fn other(")
        if name.startswith(("embedding", "top_k_of_logits")):
            assert damage[0] in kernel["code"]
            kernel["code"] = kernel["code"].replace(*damage)
    cases = json.loads((folder / "cases.json").read_text())
    own = {case["program"]: case for case in cases if case["file"] == "tied.safetensors"}
    logits = np.frombuffer(base64.b64decode(own["linear_1"]["expected"]["values"]["data"])).copy()
    logits[3] += 1e-3
    own["linear_1"]["expected"]["values"] = encode(logits)
    own["argmax"]["expected"]["ids"] = encode(np.array([VOCAB - 1], np.uint32))
    opened = damaged(chromium, address, kernels=kernels, cases=cases)
    said = verdict(opened)
    assert re.fullmatch(r"11 of \d+ cases are wrong on this browser and adapter\.", said)
    red = opened.locator("#cases .red").all_inner_texts()
    assert sum("values have other bits" in text for text in red) == 6
    assert sum("main" in text for text in red) == 3
    assert sum("1 of " in text and "further off than rounding" in text for text in red) == 1
    assert sum("is not among the largest" in text for text in red) == 1
    assert opened.locator("#cases .green").count() > 5
    opened.close()


def test_words_of_a_unigram_vocabulary(chromium: Browser, address: str) -> None:
    """Its vocabulary is a list of pairs; another list adds tokens."""
    vocab = [["<unk>", 0.0], ["▁lake", -1.5]]
    tokenizer = {"model": {"vocab": vocab}, "added_tokens": [{"id": 9, "content": "<s>"}]}
    opened = damaged(chromium, address, tokenizer=tokenizer)
    look_up(opened, "lake", 1)
    look_up(opened, "<s>", 9)
    opened.close()


def test_kernels_of_another_file_are_refused(chromium: Browser, address: str, folder: Path) -> None:
    kernels = json.loads((folder / "kernels.json").read_text())
    kernels["files"][0]["matrices"][0]["shape"][0] += 1
    opened = damaged(chromium, address, kernels=kernels)
    said = "kernels.json was made for another tied.safetensors: write the folder again"
    expect(opened.locator("#status.problem")).to_contain_text(said)
    opened.close()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("delete Navigator.prototype.gpu", "This browser has no WebGPU. Use a current Chrome"),
        ("navigator.gpu.requestAdapter = async () => null", "found no GPU that it may use"),
    ],
)
def test_a_browser_without_webgpu_is_told_what_to_do(
    chromium: Browser, address: str, script: str, said: str
) -> None:
    opened = chromium.new_page()
    opened.add_init_script(script)
    opened.goto(address)
    expect(opened.locator("#status.problem")).to_contain_text(said)
    assert opened.is_hidden("#work")
    opened.close()
