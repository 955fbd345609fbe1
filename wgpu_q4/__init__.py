"""A language model's tied embedding and output matrix: kept once, in 4 bits, on any GPU.

    weight = wgpu_q4.quantize(matrix)                # [V, K] floats -> Q4Weight
    rows = wgpu_q4.embedding(ids, weight)            # ids.shape + (K,)
    logits = wgpu_q4.linear(hidden, weight)          # hidden.shape[:-1] + (V,)

Names are imported when first used: importing this package imports numpy and nothing heavier.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wgpu_q4.device import SoftwareAdapterWarning, request_device
    from wgpu_q4.errors import DeviceError, DeviceLimitError, FormatError
    from wgpu_q4.files import from_gguf, load_file, save_file
    from wgpu_q4.ops import TopK, embedding, linear
    from wgpu_q4.weight import Q4Weight

    quantize = Q4Weight.quantize

try:
    __version__ = version("wgpu_q4")
except PackageNotFoundError:  # a checkout on sys.path, not installed
    __version__ = "0+unknown"

_HOMES = {
    "DeviceError": "errors",
    "DeviceLimitError": "errors",
    "FormatError": "errors",
    "Q4Weight": "weight",
    "SoftwareAdapterWarning": "device",
    "TopK": "ops",
    "embedding": "ops",
    "from_gguf": "files",
    "linear": "ops",
    "load_file": "files",
    "request_device": "device",
    "save_file": "files",
}

__all__ = [
    "DeviceError",
    "DeviceLimitError",
    "FormatError",
    "Q4Weight",
    "SoftwareAdapterWarning",
    "TopK",
    "__version__",
    "embedding",
    "from_gguf",
    "linear",
    "load_file",
    "quantize",
    "request_device",
    "save_file",
]


def __getattr__(name: str) -> Any:
    if name == "quantize":
        value: Any = import_module("wgpu_q4.weight").Q4Weight.quantize
    elif name in _HOMES:
        value = getattr(import_module(f"wgpu_q4.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'wgpu_q4' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
