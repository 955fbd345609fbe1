"""Adapters, devices, and the objects that are kept on a device.

One file per idea:

* `implementation`  which module speaks WebGPU: wgpu (wgpu-native), wgpudawn (Dawn) or `browser`
* `browser`         WebGPU of a browser for Python that runs there: devices, whose buffers and so on
                    are in `browser_objects`; `javascript` waits for promises
* `adapter`         which adapter of it is used, and a device with all that it offers
* `context`         one device and everything that is kept on it, which is in
* `guard`           around each call: none inside another, every error typed
* `pipelines`       compiled kernels and bind groups: a planned dispatch becomes a step
* `scratch`         the buffers that calls share
* `residents`       the weights, once each; `upload` brings their bytes there
* `parts`           the rows of a weight that fit one binding
* `probes`          small kernels that find out what the device really does
* `roundtrip`       input there, steps run, their result here; there are two ways
* `array`           arrays that stay on a device, each in its `storage`
* `recording`       dispatches that are submitted together, as `commands`, once or many times
* `native`          the functions of wgpu-native that wgpu-py does not wrap, with `native_commands`
* `dawn`            matrix units, which Dawn offers beyond WebGPU
* `info`            a device in words, for programs
* `textures`        tensors in 3-D textures, as ExecuTorch keeps them
"""

from wgpu_q4.device.adapter import (
    SoftwareAdapterWarning,
    adapter_summary,
    list_adapters,
    request_device,
)
from wgpu_q4.device.array import DeviceArray, to_device
from wgpu_q4.device.context import Context, context_for, default_context
from wgpu_q4.device.info import DeviceInfo, device_info
from wgpu_q4.device.recording import Recording, recording
from wgpu_q4.device.residents import DeviceWeight

__all__ = [
    "Context",
    "DeviceArray",
    "DeviceInfo",
    "DeviceWeight",
    "Recording",
    "SoftwareAdapterWarning",
    "adapter_summary",
    "context_for",
    "default_context",
    "device_info",
    "list_adapters",
    "recording",
    "request_device",
    "to_device",
]
