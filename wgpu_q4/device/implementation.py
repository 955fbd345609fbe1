"""The module that speaks WebGPU.

``wgpu`` (wgpu-native, naga) is the default; ``wgpudawn`` has the same API on Dawn (Tint), and
`wgpu_q4.device.browser` has it on a browser's WebGPU, for Python that runs there.  No other module
of this package imports any of them: all other code works on the device that it is given.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from wgpu_q4 import forks
from wgpu_q4.errors import DeviceError

ENVIRONMENT_VARIABLE = "WGPU_Q4_IMPLEMENTATION"
BROWSER = "wgpu_q4.device.browser"
KNOWN = ("wgpu", "wgpudawn")
IN_BROWSER = sys.platform == "emscripten"


def load_implementation(implementation: str | ModuleType | None = None) -> ModuleType:
    """Return the module named by the argument, by ``WGPU_Q4_IMPLEMENTATION``, or the default.

    Raises:
        DeviceError: the module is not installed, or lacks wgpu-py's API.
    """
    if implementation is None:
        default = BROWSER if IN_BROWSER else KNOWN[0]
        implementation = os.environ.get(ENVIRONMENT_VARIABLE) or default
    if isinstance(implementation, str):
        try:
            module = importlib.import_module(implementation)
        except (ImportError, OSError, TypeError, ValueError) as error:
            # OSError: its native library does not load; the last two: no module has such a name
            raise DeviceError(
                f"the WebGPU implementation {implementation!r} cannot be imported ({error}). "
                f"Known ones: {', '.join(KNOWN)}; install with pip"
            ) from error
    else:
        module = implementation
    if not hasattr(module, "gpu"):
        name = getattr(module, "__name__", repr(module))
        raise DeviceError(f"{name} is not a WebGPU implementation: it has no 'gpu'")
    return module


_process: int | None = None


def check_process() -> None:
    """Raise if this process is a fork of one that used a driver, through this package or not.

    A driver's threads do not survive a fork: the first wait would never end, on a new device too.

    Raises:
        DeviceError: says to start processes with spawn.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid() or forks.parent_used_a_driver:
        raise DeviceError(
            "a GPU driver was used before this process was forked, and no device works in it. "
            "Start processes with multiprocessing's 'spawn' method"
        )


def implementation_of(device: Any) -> ModuleType:
    """Return the module that ``device`` came from.

    Raises:
        TypeError: ``device`` is not a device of such a module.
    """
    module = _module_of(device)
    if module is None:
        raise TypeError(
            f"device must be a GPUDevice of wgpu or wgpudawn, the name of an adapter, or None, "
            f"not {type(device).__name__}"
        )
    return module


def device_of(thing: object) -> Any:
    """Return the device of a buffer, an encoder or a pass; None if ``thing`` is no such object.

    Every implementation keeps it in an attribute that is not part of its API.
    """
    device = getattr(thing, "_device", None)
    return None if _module_of(device) is None else device


def _module_of(device: object) -> ModuleType | None:
    """Return the module that a device came from; None if ``device`` is no device."""
    name = type(device).__module__
    module = sys.modules.get(name if name == BROWSER else name.partition(".")[0])
    kind = getattr(module, "GPUDevice", None)
    return module if kind is not None and isinstance(device, kind) else None
