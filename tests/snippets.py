"""The Python blocks of Markdown files, and what a reader of them would have at hand.

A block that uses a model which it does not make says so in a comment, which readers do not see::

    <!-- given: a tied Llama -->
    ```python
    report = tie(model)
    ```

The blocks of a file run one after another in one namespace, as a reader would try them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = re.compile(
    r"^(?:<!-- given: (?P<given>[^\n]+) -->\n)?"
    r"(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Snippet:
    """A block of Python.

    Attributes:
        file: where it stands.
        line: the number of its first line there.
        code: its text, not indented.
        given: the name of what it needs, a key of `GIVEN`, or an empty string.
    """

    file: Path
    line: int
    code: str
    given: str

    def run(self, namespace: dict[str, Any]) -> None:
        """Run the block; a traceback names its line in the file."""
        if self.given:
            namespace.update(GIVEN[self.given]())
        padding = "\n" * (self.line - 1)
        exec(compile(padding + self.code, str(self.file), "exec"), namespace)


def snippets(file: Path) -> list[Snippet]:
    """Return the Python blocks of a Markdown file, in order."""
    text = file.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Snippet(file, line, code, match["given"] or ""))
    return found


def tied_llama() -> dict[str, Any]:
    """A causal language model of Hugging Face with one matrix for both ends, and random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=203,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    return {"model": model.eval()}


def model_of_torchao() -> dict[str, Any]:
    """A small model that torchao quantized, its inputs, and what lowers it."""
    import torch
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from tests.tied_models import IDS, Tied, build_pattern_graphs_once, quantized_shared

    build_pattern_graphs_once()
    return {
        "torch": torch,
        "model": quantized_shared(Tied()),
        "inputs": (IDS,),
        "to_edge_transform_and_lower": to_edge_transform_and_lower,
        "VulkanPartitioner": VulkanPartitioner,
    }


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "a tied Llama": tied_llama,
    "a tied model, quantized by torchao": model_of_torchao,
}
