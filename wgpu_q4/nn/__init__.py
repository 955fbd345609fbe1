"""torch modules that read one `Q4Weight`, and `tie`, which puts them into a Hugging Face model.

The matrix is frozen; gradients pass it to the body of the model.  The body stays in torch; the
embedding and the output linear run on the device of `wgpu_q4`, from the one packed matrix that both
hold.  Tensors may live on any torch device: a result comes back on its input's.

Once this package is imported, ``from_pretrained`` of transformers reads what ``save_pretrained`` of
a tied model writes, without the float matrix, and ties a float checkpoint as it is loaded if it is
given ``quantization_config=Q4Config()``.

Requires torch.  `tie` needs a model in hands, and so transformers, but imports neither; `Q4Config`
imports transformers.
"""

from typing import TYPE_CHECKING, Any

from wgpu_q4.nn.after_import import after_import
from wgpu_q4.nn.modules import QuantizedEmbedding, QuantizedLinear
from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.nn.tying import TieReport, tie

if TYPE_CHECKING:
    from wgpu_q4.nn.pretrained import Q4Config

__all__ = ["Q4Config", "Q4Tensor", "QuantizedEmbedding", "QuantizedLinear", "TieReport", "tie"]


def _register() -> None:
    import wgpu_q4.nn.pretrained  # noqa: F401  registers itself


# transformers imports the registry of its quantizers with its first model, and takes 1.4 s for it.
after_import("transformers.quantizers.auto", _register)


def __getattr__(name: str) -> Any:
    if name == "Q4Config":
        from wgpu_q4.nn.pretrained import Q4Config

        return Q4Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
