"""A decoder of the Llama family that runs on the device, from ids to ids.

One file per idea:

* `config`       the shape of a model; `families`, a line for each kind that there is
* `weights`      a model's numbers on the host, a layer at a time
* `affine`       matrices in 4 or 8 bits with offsets, as some GGUF files have them
* `huggingface`, `gguf`  where they come from
* `matrices`, `layers`   the numbers on the device
* `memory`       the sequence, the cache, and what kernels hand on
* `limits`       what a device can hold
* `steps`        the dispatches that are common to the steps of a `token` and of a `prompt`
* `choose`       from logits to the next id; `draw`, by chance; `sampler`, what that keeps
* `submission`   steps submitted ahead of the host
* `engine`       what is on the device, and what runs there
* `decoder`      `Decoder`
* `program`, `notes`  a decoder written down, for a host that is not Python; `tokenizer`, its texts
"""

from wgpu_q4.decoder.affine import AffineMatrix
from wgpu_q4.decoder.choose import Chooser, Greedy, Logits, advance
from wgpu_q4.decoder.config import Config, Rope
from wgpu_q4.decoder.decoder import Decoder
from wgpu_q4.decoder.draw import Draw
from wgpu_q4.decoder.weights import LayerWeights, Weights
from wgpu_q4.kernels.decoder.sampling import Sampling

__all__ = [
    "AffineMatrix",
    "Chooser",
    "Config",
    "Decoder",
    "Draw",
    "Greedy",
    "LayerWeights",
    "Logits",
    "Rope",
    "Sampling",
    "Weights",
    "advance",
]
