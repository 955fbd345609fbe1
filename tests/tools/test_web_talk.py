"""The page of a whole model in a headless Chromium: its tokens are those of `Decoder`."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from transformers import PreTrainedTokenizerFast

from tests.tiny_decoders import KINDS, LLAMA, Kind
from tests.tiny_tokenizers import KINDS as TOKENIZERS
from tools.pages import served
from wgpu_q4.commands.web import write
from wgpu_q4.decoder import Decoder, Draw, Sampling

CONTEXT = 640
"""More than the 512 positions up to which one workgroup looks at all of them."""

CHAT = (
    "{% for message in messages %}{{ '<|user|>' if message['role'] == 'user' else '<|begin|>' }}"
    "{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|begin|>{% endif %}"
)
GEMMA2 = next(kind for kind in KINDS if kind.name == "gemma2")


def model_folder(home: Path, kind: Kind, tokenizer: str, chat: str | None, **options: Any) -> Path:
    """Write a model of transformers, with a tokenizer."""
    sizes = {"vocab_size": 500, "intermediate_size": 64}  # matrices of two shapes, not of four
    kind.build(eos_token_id=499, **sizes, **options).save_pretrained(home / "tiny")
    made: Any = PreTrainedTokenizerFast
    words = made(tokenizer_object=TOKENIZERS[tokenizer]())
    words.chat_template = chat
    words.save_pretrained(home / "tiny")
    return home / "tiny"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("talk"), LLAMA, "smollm", CHAT)


@pytest.fixture(scope="module")
def decoder(model: Path) -> Decoder:
    return Decoder.from_hf(model, capacity=CONTEXT)


@pytest.fixture(scope="module")
def folder(model: Path) -> Path:
    write([model], model.parent / "page", context=CONTEXT)
    return model.parent / "page"


@pytest.fixture(scope="module")
def page(chromium: Browser, address: str) -> Page:
    """The page with its model on the GPU."""
    opened = chromium.new_page()
    opened.goto(address)
    opened.click("#load")
    expect(opened.locator("#asking")).to_be_visible()
    return opened


def ask(page: Page, text: str, count: int, *, goes_on: bool = False) -> list[int]:
    """Send words, the first of a conversation unless it goes on; return the ids of the answer."""
    if not goes_on:
        page.click("#fresh")
    page.fill("#most", str(count))
    page.fill("#prompt", text)
    page.click("#send")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#status")).to_have_text("Ready.")
    shown = page.locator(".answer").last.get_attribute("data-ids")
    return [int(id_) for id_ in (shown or "").split()]


def ids_of(model: Path, text: str) -> list[int]:
    words: Any = PreTrainedTokenizerFast.from_pretrained(model)
    if words.chat_template is None:
        return list(words(text)["input_ids"])
    messages = [{"role": "user", "content": text}]
    return list(words.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])


@pytest.mark.parametrize(
    ("text", "count"),
    [("The river, naïve 😀\n 12", 40), ("Paris " * 100, 30)],
    ids=["short", "passes, and past 512 positions"],
)
def test_an_answer_has_the_ids_of_the_decoder(
    page: Page, model: Path, decoder: Decoder, text: str, count: int
) -> None:
    prompt = ids_of(model, text)
    ids = ask(page, text, count)
    assert ids == list(decoder.generate(prompt, count))
    shown = page.inner_text("#speed")
    assert re.match(rf"The prompt's {len(prompt)} tokens took \d+\.\d\d s; {count} new", shown)
    words: Any = PreTrainedTokenizerFast.from_pretrained(model)
    assert page.locator(".answer").last.text_content() == words.decode(
        ids, skip_special_tokens=True
    )
    assert page.locator(".asked").last.text_content() == text


def test_a_conversation_goes_on(page: Page, model: Path, decoder: Decoder) -> None:
    words: Any = PreTrainedTokenizerFast.from_pretrained(model)
    first = ask(page, "the cat", 6)
    second = ask(page, "a hat", 8, goes_on=True)
    ids = [*ids_of(model, "the cat"), *first]
    ids += words("<|end|><|user|>a hat<|end|><|begin|>", add_special_tokens=False)["input_ids"]
    assert second == list(decoder.generate(ids, 8))
    assert second != ask(page, "a hat", 8) == list(decoder.generate(ids_of(model, "a hat"), 8))
    assert page.locator(".asked").count() == 1


def test_a_draw_has_the_ids_of_the_decoder(page: Page, model: Path) -> None:
    page.check("#draw")
    for name, value in (("temperature", "1.3"), ("top-p", "0.8"), ("seed", "4294967303")):
        page.fill(f"#{name}", value)
    ids = ask(page, "The river", 24)
    page.uncheck("#draw")
    drawn = Draw(Sampling(temperature=1.3, top_p=0.8, seed=4294967303))
    decoder = Decoder.from_hf(model, capacity=CONTEXT, chooser=drawn)
    assert ids == list(decoder.generate(ids_of(model, "The river"), 24))
    assert ids != ask(page, "The river", 24)


def test_stop_ends_an_answer_and_the_next_one_is_whole(
    page: Page, model: Path, decoder: Decoder
) -> None:
    page.fill("#most", "600")
    page.fill("#prompt", "The cat")
    page.click("#send")
    expect(page.locator(".answer").last).to_have_text(re.compile("...."))
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#stop")).to_be_disabled()
    assert 0 < len((page.locator(".answer").last.get_attribute("data-ids") or "").split()) < 600
    assert ask(page, "a hat", 5) == list(decoder.generate(ids_of(model, "a hat"), 5))


def test_the_page_says_what_it_holds(page: Page, decoder: Decoder) -> None:
    held = decoder.nbytes
    assert page.inner_text("#held-tied") == f"{held['embedding and head']:,} bytes"
    assert page.inner_text("#held-cache") == f"{held['cache']:,} bytes for {CONTEXT} positions"
    angles = CONTEXT * 16 * 4  # float32 cosine and sine of half of a head's columns
    layers = f"{held['layers'] + angles:,} bytes: llama, 3 layers, hidden 64"
    assert page.inner_text("#held-layers") == layers
    assert page.is_visible("#slow")


def test_a_model_with_a_head_of_its_own_and_what_a_browser_or_its_cache_does_not_hold(
    chromium: Browser, tmp_path: Path
) -> None:
    model = model_folder(tmp_path, GEMMA2, "gemma", None, tie_word_embeddings=False)
    write([model], tmp_path / "page", context=64)
    prompt = ids_of(model, "the cat")
    decoder = Decoder.from_hf(model, capacity=64)
    program = json.loads((tmp_path / "page" / "decoder.json").read_text())
    program["limits"] |= {"maxStorageBuffersPerShaderStage": 1000, "maxBufferSize": 1 << 52}
    with served(tmp_path / "page") as address:
        opened = chromium.new_page()
        opened.goto(address)
        opened.route("**/decoder.json", partial(Route.fulfill, json=program))
        opened.click("#load")
        problem = opened.locator("#status.problem")
        expect(problem).to_contain_text("needs 1,000 buffers bound to one kernel, and this browser")
        expect(problem).to_contain_text("(maxBufferSize)")
        opened.unroute("**/decoder.json")
        opened.click("#load")
        expect(opened.locator("#asking")).to_be_visible()
        assert ask(opened, "the cat", 12) == list(decoder.generate(prompt, 12))
        # What does not fit into the cache is said, and does no harm.
        opened.click("#fresh")
        opened.fill("#prompt", "the cat's hat " * 40)
        opened.click("#send")
        expect(opened.locator("#status.problem")).to_contain_text("the model's cache holds 64 here")
        assert ask(opened, "the cat", 12) == list(decoder.generate(prompt, 12))
        opened.close()
