"""The same jobs by other libraries, where they are installed.

* `base`               a peer, and the check that it computes the same
* `torch_peers`        torch on the same packed bytes, and on matrices that are not quantized
* `onnx_graphs`        graphs of one operator on a 4-bit weight
* `onnxruntime_peers`  ONNX Runtime's 4-bit operators, on the processor and through WebGPU

Each peer is optional; a peer that is absent is named, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from tools.bench.peers.base import Peer, UnavailableError, check
from wgpu_q4 import Q4Weight
from wgpu_q4.bench.timing import Effort

__all__ = ["PEERS", "Peer", "UnavailableError", "check", "make"]

_BOTH = ("embedding", "linear")

PEERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "torch": ("torch_peers", "Eager", ("embedding",)),
    "torch.compile": ("torch_peers", "Compiled", ("embedding",)),
    "torch-float32": ("torch_peers", "UnquantizedFloat", ("linear",)),
    "torch-float16": ("torch_peers", "UnquantizedHalf", ("linear",)),
    "onnxruntime": ("onnxruntime_peers", "Processor", _BOTH),
    "onnxruntime-int8": ("onnxruntime_peers", "ProcessorInt8", ("linear",)),
    "onnxruntime-webgpu": ("onnxruntime_peers", "WebGpu", _BOTH),
}
"""Every peer: its name on the command line, the class that makes it, the ops that it has."""


def make(name: str, weight: Q4Weight, effort: Effort) -> Peer:
    """Return the peer of that name for one weight.

    Raises:
        UnavailableError: the peer is not installed, or cannot run here; the message says why.
    """
    module, kind, _ = PEERS[name]
    try:
        made: Callable[[Q4Weight, Effort], Peer] = getattr(
            import_module(f"tools.bench.peers.{module}"), kind
        )
        return made(weight, effort)
    except (ImportError, OSError) as error:  # OSError: a native library does not load
        raise UnavailableError(f"not installed ({error})") from error
