"""torch modules that read one `Q4Weight`, and `tie`, which puts them into a Hugging Face model.

The matrix is frozen; gradients pass it to the body of the model.  The body stays in torch; the
embedding and the output linear run on the device of `wgpu_q4`, from the one packed matrix that both
hold.  Tensors may live on any torch device: a result comes back on its input's.

Requires torch.  `tie` needs a model in hands, and so transformers, but imports neither.
"""

from wgpu_q4.nn.modules import QuantizedEmbedding, QuantizedLinear
from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.nn.tying import TieReport, tie

__all__ = ["Q4Tensor", "QuantizedEmbedding", "QuantizedLinear", "TieReport", "tie"]
