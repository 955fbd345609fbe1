"""The architectures of the installed transformers that tie words to a head, by its own tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

KINDS = {
    "CAUSAL_LM": "causal",
    "SEQ_TO_SEQ_CAUSAL_LM": "sequence to sequence",
    "MASKED_LM": "masked",
    "SPEECH_SEQ_2_SEQ": "speech",
    "TEXT_TO_WAVEFORM": "speech",
    "IMAGE_TEXT_TO_TEXT": "multimodal",
    "MULTIMODAL_LM": "multimodal",
    "PRETRAINING": "pretraining",
}
"""The tables of transformers whose models score the words of a vocabulary; the first one that has a
class says its kind."""

WRAPPERS = ("EncoderDecoderModel", "SpeechEncoderDecoderModel", "VisionEncoderDecoderModel")
"""What ties, if anything, is the decoder that they are given."""


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, and the kind of model that it is."""

    name: str
    kind: str

    @property
    def type(self) -> Any:
        """The class itself."""
        return getattr(transformers, self.name)


def architectures() -> list[Architecture]:
    """Return the classes that may tie their embedding to a head, in the order of their names."""
    kinds: dict[str, str] = {}
    for table, kind in KINDS.items():
        for names in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES").values():
            for name in names if isinstance(names, tuple | list) else [names]:
                kinds.setdefault(name, kind)
    found = [Architecture(name, kind) for name, kind in sorted(kinds.items())]
    return [each for each in found if each.name in WRAPPERS or _declares_ties(each.type)]


def _declares_ties(cls: Any) -> bool:
    return bool(getattr(cls, "_tied_weights_keys", None))


def sample(found: list[Architecture], per_kind: int) -> list[Architecture]:
    """Return some of each kind, at equal distances in the order of their names."""
    chosen = []
    for kind in sorted({each.kind for each in found}):
        members = [each for each in found if each.kind == kind]
        chosen += members[:: -(-len(members) // per_kind)]
    return chosen
