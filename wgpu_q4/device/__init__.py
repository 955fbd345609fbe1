"""Adapters, devices and what is kept on them.

One file per idea:

* `implementation`  which module speaks WebGPU: wgpu (wgpu-native) or wgpudawn (Dawn)
* `adapter`         which adapter of it is used, and a device with all that it offers
* `context`         what is kept per device: pipelines, scratch buffers, uploaded weights
* `roundtrip`       input there, a compute pass, its result here: by two ways
* `upload`          one weight on one device
* `textures`        tensors in 3-D textures, as ExecuTorch keeps them
"""

from wgpu_q4.device.adapter import (
    SoftwareAdapterWarning,
    adapter_summary,
    list_adapters,
    request_device,
)
from wgpu_q4.device.context import Context, context_for, default_context
from wgpu_q4.device.upload import DeviceWeight

__all__ = [
    "Context",
    "DeviceWeight",
    "SoftwareAdapterWarning",
    "adapter_summary",
    "context_for",
    "default_context",
    "list_adapters",
    "request_device",
]
