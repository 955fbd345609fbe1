"""What a small model of any kind can be called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

IDS = [[5, 9, 3, 8, 2, 7], [4, 6, 8, 9, 5, 3]]
FRAMES, SAMPLES = 64, 4000


class NotCalled(Exception):
    """No form of input was found that the float model takes."""


@torch.no_grad()
def find_inputs(model: Any) -> dict[str, Any]:
    """Return inputs that a model takes: words if it takes them, else what it asks for beside them.

    Raises:
        NotCalled: none of the forms fits; the message is what the model said to the last one.
    """
    names = inspect.signature(model.forward).parameters
    said = ""
    for form in _forms(model.config):
        inputs = {name: value for name, value in form.items() if name in names}
        if "use_cache" in names:
            inputs["use_cache"] = False
        try:
            torch.manual_seed(0)
            model(**inputs)
        except Exception as error:  # whatever a model says to inputs that it does not take
            said = said or f"{type(error).__name__}: {error}"
        else:
            return inputs
    raise NotCalled(said)


def _forms(config: Any) -> Iterator[dict[str, Any]]:
    torch.manual_seed(1)
    ids = torch.tensor(IDS)
    words = {"input_ids": ids}
    answer = {"decoder_input_ids": ids}
    yield words
    yield {**words, **answer}
    yield {**words, **answer, "attention_mask": torch.ones_like(ids)}
    yield {**words, **answer, "bbox": torch.zeros(*ids.shape, 4)}
    mels = _size(config, "num_mel_bins", "input_feat_per_channel", "feature_size") or 80
    for frames in (2 * (_size(config, "max_source_positions") or FRAMES), FRAMES):
        spectrum = torch.randn(2, mels, frames)
        for features in (spectrum, spectrum.transpose(1, 2).contiguous()):
            yield {"input_features": features, **answer}
            yield {"input_features": features, **words}
            yield {"input_values": features, **answer}
    samples = torch.randn(2, SAMPLES)
    yield {"input_values": samples, **answer}
    yield {"input_values": samples, **answer, "attention_mask": torch.ones(2, SAMPLES).long()}
    side = _size(config, "image_size") or 32
    images = torch.randn(2, 3, side, side)
    yield {"pixel_values": images, **answer}
    yield {"pixel_values": images, **words}
    yield {
        "pixel_values": images[:, None],
        **words,
        "attention_mask": torch.ones_like(ids),
        "image_attention_mask": torch.ones(*ids.shape, 1).long(),
    }
    seen = _size(config, "latent_query_num") or 0
    longer = torch.arange(seen + 6).expand(2, -1) % 16
    mask = (torch.arange(seen + 6) < seen).long().expand(2, -1)
    yield {"pixel_values": images, "input_ids": longer, "image_embeds_position_mask": mask}
    patch = 2 + (_size(config, "patch_embed_hidden_size") or 768)
    yield {"flattened_patches": torch.rand(2, 4, patch), **answer}
    yield {"input_ids": ids[:, :, None].expand(-1, -1, _size(config, "num_codebooks") or 2)}


def _size(config: Any, *names: str) -> int | None:
    """Return the first size of these names in a config or in its parts."""
    parts = [config, *(each for each in vars(config).values() if hasattr(each, "to_dict"))]
    found = (getattr(part, name, None) for part in parts for name in names)
    return next((size for size in found if type(size) is int), None)
