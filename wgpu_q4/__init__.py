"""A language model's tied embedding and output matrix: kept once, in 4 bits, on any GPU.

    weight = wgpu_q4.quantize(matrix)                # [V, K] floats -> Q4Weight
    rows = wgpu_q4.embedding(ids, weight)            # ids.shape + (K,)
    logits = wgpu_q4.linear(hidden, weight)          # hidden.shape[:-1] + (V,)
    next_ids = wgpu_q4.argmax(hidden, weight)        # hidden.shape[:-1]
    best = wgpu_q4.top_k(hidden, weight, k=40)       # best.values, best.ids: (…, 40)

    ids = wgpu_q4.to_device(ids)                     # the ops on device arrays give device arrays
    with wgpu_q4.recording() as step:                # submitted together, and as often as you like
        wgpu_q4.argmax(wgpu_q4.embedding(ids, weight), weight, out=ids)
    step.replay(100)

Names are imported when first used: importing this package imports numpy and nothing heavier.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from wgpu_q4 import forks as forks  # notes each fork, from the first import on

if TYPE_CHECKING:
    from wgpu_q4.arrays import FloatDtype
    from wgpu_q4.device import (
        DeviceArray,
        DeviceInfo,
        SoftwareAdapterWarning,
        device_info,
        request_device,
        to_device,
    )
    from wgpu_q4.device.recording import Recording, recording
    from wgpu_q4.errors import DeviceError, DeviceLimitError, ExportError, FormatError, RankError
    from wgpu_q4.files import load_file, save_file
    from wgpu_q4.foreign import (
        from_compressed_tensors,
        from_gguf,
        from_gptq,
        from_mlx,
        from_onnxruntime,
        from_torchao,
        load_tied,
    )
    from wgpu_q4.format import Convention
    from wgpu_q4.kernels import Accuracy, Layout, Storage
    from wgpu_q4.ops.argmax import argmax
    from wgpu_q4.ops.embedding import embedding
    from wgpu_q4.ops.forced import forced
    from wgpu_q4.ops.linear import kernel_for, linear
    from wgpu_q4.ops.top_k import TopK, top_k
    from wgpu_q4.weight import Q4Weight

    quantize = Q4Weight.quantize

try:
    __version__ = version("wgpu_q4")
except PackageNotFoundError:  # a checkout on sys.path, not installed
    __version__ = "0+unknown"

_HOMES = {
    "Accuracy": "kernels",
    "Convention": "format",
    "DeviceArray": "device",
    "DeviceError": "errors",
    "DeviceInfo": "device",
    "DeviceLimitError": "errors",
    "ExportError": "errors",
    "FloatDtype": "arrays",
    "FormatError": "errors",
    "Layout": "kernels",
    "Q4Weight": "weight",
    "RankError": "errors",
    "Recording": "device",
    "SoftwareAdapterWarning": "device",
    "Storage": "kernels",
    "TopK": "ops",
    "argmax": "ops",
    "device_info": "device",
    "embedding": "ops",
    "forced": "ops",
    "from_compressed_tensors": "foreign",
    "from_gguf": "foreign",
    "from_gptq": "foreign",
    "from_mlx": "foreign",
    "from_onnxruntime": "foreign",
    "from_torchao": "foreign",
    "linear": "ops",
    "kernel_for": "ops",
    "load_file": "files",
    "load_tied": "foreign",
    "recording": "device",
    "request_device": "device",
    "save_file": "files",
    "to_device": "device",
    "top_k": "ops",
}

__all__ = [
    "Accuracy",
    "Convention",
    "DeviceArray",
    "DeviceError",
    "DeviceInfo",
    "DeviceLimitError",
    "ExportError",
    "FloatDtype",
    "FormatError",
    "Layout",
    "Q4Weight",
    "RankError",
    "Recording",
    "SoftwareAdapterWarning",
    "Storage",
    "TopK",
    "__version__",
    "argmax",
    "device_info",
    "embedding",
    "forced",
    "from_compressed_tensors",
    "from_gguf",
    "from_gptq",
    "from_mlx",
    "from_onnxruntime",
    "from_torchao",
    "kernel_for",
    "linear",
    "load_file",
    "load_tied",
    "quantize",
    "recording",
    "request_device",
    "save_file",
    "to_device",
    "top_k",
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
