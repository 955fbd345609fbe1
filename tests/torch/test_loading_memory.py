"""Loading a 4-bit checkpoint takes no memory of the size of the float matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.devices import run_python
from wgpu_q4 import Q4Weight
from wgpu_q4.nn import tie

VOCAB, HIDDEN = 131_072, 512
FLOAT16_BYTES = VOCAB * HIDDEN * 2

LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
import wgpu_q4.nn
assert "transformers" not in sys.modules
from transformers import LlamaForCausalLM

def count(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(name)

@torch.no_grad()
def logits(model):
    return model(torch.tensor([[1, 2, 3]])).logits.sum().item()

small, large = sys.argv[1:]
logits(LlamaForCausalLM.from_pretrained(small))  # all that a first call brings along
before = count("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # VmHWM starts again from what there is
model = LlamaForCausalLM.from_pretrained(large)
loaded = count("VmHWM") - before
assert type(model.lm_head).__name__ == "QuantizedLinear"
total = logits(model)
print(json.dumps({"loaded": loaded, "computed": count("VmHWM") - before, "total": total}))
"""

IMPORT = """
import sys
class NoTransformers:
    def find_spec(name, *_):
        if name.partition(".")[0] == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
sys.meta_path.insert(0, NoTransformers)
import wgpu_q4.nn
try:
    wgpu_q4.nn.Q4Config
except ModuleNotFoundError as error:
    print(error.name)
"""


def save_tied(folder: Path, vocab: int) -> Any:
    """Save a model of one layer; the float matrix is not made here either."""
    sizes: dict[str, Any] = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, vocab_size=vocab, num_attention_heads=8, tie_word_embeddings=True)
    with init_empty_weights(include_buffers=False):
        model: Any = LlamaForCausalLM(config)
    packed = np.random.default_rng(0).integers(0, 256, (vocab, HIDDEN // 2), np.uint8)
    tie(model, weight=Q4Weight(packed, np.full((vocab, HIDDEN // 32), 0.01, np.float16)))
    for name, parameter in list(model.named_parameters()):
        parent, _, leaf = name.rpartition(".")
        values = nn.Parameter(torch.randn(parameter.shape) * 0.05)
        setattr(model.get_submodule(parent), leaf, values)
    model.save_pretrained(folder)
    return model


def test_peak_memory_of_loading(tmp_path: Path) -> None:
    save_tied(tmp_path / "small", 1024)
    model = save_tied(tmp_path / "large", VOCAB)
    told = json.loads(run_python("-c", LOAD, str(tmp_path / "small"), str(tmp_path / "large")))
    assert told["loaded"] < FLOAT16_BYTES / 2
    # The software adapter's memory is the host's, which then has the matrix a second time.
    assert told["computed"] < FLOAT16_BYTES
    with torch.no_grad():
        want = model(torch.tensor([[1, 2, 3]])).logits.sum().item()
    assert told["total"] == want


def test_imports_without_transformers() -> None:
    assert run_python("-c", IMPORT).strip() == "transformers"
