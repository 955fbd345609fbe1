"""The tokenizer of a model, and how a chat with it is written, for a host that is not Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wgpu_q4.errors import FormatError

_PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for the words of a user, where a chat template puts them."""

_KNOWN = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Sequence"},
    "pre_tokenizer": {"ByteLevel", "Digits", "Metaspace", "Sequence", "Split"},
    "decoder": {"ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip"},
}
"""The parts of a tokenizer that ``examples/web/bpe.js`` has."""


def tokenizer_of(model: Path) -> tuple[str, dict[str, Any]]:
    """Return a model's ``tokenizer.json``, and how its chat is written.

    Returns:
        The text of ``tokenizer.json``, and an object: ``"first"``, ids before a prompt;
        ``"before"`` and ``"after"``, the texts around the words of a user; ``"between"``, the text
        from an answer to the next words, or None if a chat has no next words.

    Raises:
        ImportError: transformers is not installed.
        FormatError: a tokenizer that the page does not have.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            "the tokenizer of a model is read with transformers: pip install 'wgpu_q4[hf]'"
        ) from error
    where = {} if model.is_dir() else {"gguf_file": model.name}
    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(model if model.is_dir() else model.parent), **where
    )
    if not tokenizer.is_fast:
        raise FormatError(f"{model}: the page reads tokenizer.json, and this tokenizer has none")
    text = str(tokenizer.backend_tokenizer.to_str())
    check_tokenizer(text, str(model))
    if tokenizer.chat_template:
        return text, _chat_of(tokenizer)
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    first = whole[: whole.index(plain[0])]
    return text, {"first": first, "before": "", "after": "", "between": None}


def _chat_of(tokenizer: Any) -> dict[str, Any]:
    """Return how a tokenizer writes a chat, read off its template."""

    def written(*roles: str) -> list[str]:
        messages = [{"role": role, "content": _PLACE} for role in roles]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return str(text).split(_PLACE)

    before, after = written("user")
    several = written("user", "assistant", "user")
    # Some templates write an answer otherwise once another turn follows.
    goes_on = len(several) == 4 and several[:2] + several[3:] == [before, after, after]
    between = several[2] if goes_on else None
    return {"first": [], "before": before, "after": after, "between": between}


def check_tokenizer(text: str, where: str) -> None:
    """Raise unless the page can encode with a ``tokenizer.json``.

    Raises:
        FormatError: it is no BPE, or has a part that the page does not have.
    """
    whole = json.loads(text)
    kind = whole["model"].get("type", "BPE")
    if kind != "BPE":
        raise FormatError(f"{where}: the page encodes with BPE, and this tokenizer is {kind}")
    for part, known in _KNOWN.items():
        for found in _types(whole.get(part)):
            if found not in known:
                raise FormatError(
                    f"{where}: the page has no {part} {found}; it has {', '.join(sorted(known))}"
                )


def _types(part: Any) -> list[str]:
    """Return the types of a part of a tokenizer and of those inside it."""
    if part is None:
        return []
    inside = [*part.get("normalizers", ()), *part.get("pretokenizers", ())]
    inside += part.get("decoders", ())
    return [part["type"], *(type_ for one in inside for type_ in _types(one))]
