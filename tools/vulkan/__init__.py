"""One SPIR-V compute kernel on any Vulkan device, dispatched as ExecuTorch would.

Needs the package ``vulkan`` and a Vulkan loader.  WebGPU is not involved.

* `drivers`    the drivers of this machine, and how to load one of them only
* `instance`   a Vulkan instance with one driver, and the reports of the validation layer
* `resources`  the resources that a kernel binds: buffers, sampled textures, storage images
* `dispatch`   a dispatch: kernel, resources, grid, workgroup
* `device`     a device with one queue, which runs dispatches
* `memory`     buffers and images of one dispatch
* `pipeline`   the pipeline of one dispatch, and the descriptors of its resources
* `run`        the commands of one dispatch, recorded and submitted
"""

from tools.vulkan.device import Device
from tools.vulkan.dispatch import Dispatch, Outcome, upstream_local_size
from tools.vulkan.drivers import Driver, find_driver, list_drivers
from tools.vulkan.instance import Instance, ValidationError
from tools.vulkan.resources import (
    Resource,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
)

__all__ = [
    "Device",
    "Dispatch",
    "Driver",
    "Instance",
    "Outcome",
    "Resource",
    "SampledImage",
    "StorageBuffer",
    "StorageImage",
    "UniformBuffer",
    "ValidationError",
    "find_driver",
    "list_drivers",
    "upstream_local_size",
]
