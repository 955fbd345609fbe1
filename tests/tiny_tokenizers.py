"""Small tokenizers of the kinds that models have, trained on a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

LINES = [
    "The capital of France is Paris, and the river is the Seine.",
    "the cat's hat; we're 1234 years old.\n\nI'LL say: naïve café, übergroß",
    "def f(x):\n    return x + 1  # one more",
    "日本語のテキスト и русский текст 😀",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|begin|>", "<|user|>", "<|end|>"]


def _trained(tokenizer: Any, **options: Any) -> Any:
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, show_progress=False, **options
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens([AddedToken("<extra>", rstrip=True)])
    return tokenizer


def byte_level(*before: Any, normalizer: Any = None, use_regex: bool = True) -> Any:
    """Return a tokenizer of bytes, with what stands before them."""
    tokenizer: Any = Tokenizer(models.BPE())
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, own])
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return _trained(tokenizer, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def sentence_pieces(normalizer: Any, pre_tokenizer: Any, strip: int) -> Any:
    """Return a tokenizer of letters that falls back to bytes, as SentencePiece's."""
    tokenizer: Any = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token=None))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", strip, 0)] * (strip > 0))
    return _with_bytes(_trained(tokenizer))


def _with_bytes(tokenizer: Any) -> Any:
    """Return a tokenizer with a token for each byte in its vocabulary."""
    whole = json.loads(tokenizer.to_str())
    vocab, first = whole["model"]["vocab"], tokenizer.get_vocab_size()
    vocab |= {f"<0x{byte:02X}>": first + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(whole))


def _split(pattern: Any, behavior: str) -> Any:
    return pre_tokenizers.Split(pattern, behavior)


KINDS: dict[str, Callable[[], Any]] = {
    "gpt2": byte_level,
    "smollm": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama 3": lambda: byte_level(_split(Regex(LLAMA3), "isolated"), use_regex=False),
    "qwen": lambda: byte_level(
        _split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
        normalizer=normalizers.NFC(),
        use_regex=False,
    ),
    "llama 2": lambda: sentence_pieces(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, 1
    ),
    "gemma": lambda: sentence_pieces(
        normalizers.Replace(" ", "▁"), _split(" ", "merged_with_previous"), 0
    ),
    "metaspace": lambda: sentence_pieces(None, pre_tokenizers.Metaspace(prepend_scheme="first"), 1),
}
"""Makers of tokenizers by the models that have such ones."""
