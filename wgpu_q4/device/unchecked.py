"""Kernels that run without wgpu's checks of every address, because every address is proven.

wgpu-native clamps each index in a shader to what is bound, and counts the turns of each loop.  On
an H200 that costs a matrix product 3 to 9 % (``benchmarks/NOTES.md``).  A kernel goes without if

* each WGSL piece that reads or writes memory says under ``In range:`` why its indices stay within
  the shape V, K, G and the sizes M, M' that the host writes (a test sees that none is without);
* its loops are bounded by the same numbers;
* the plan says how many bytes each buffer must have for that shape, and `Context.dispatch` compares
  them with the buffers bound, at every dispatch.

The embedding keeps its checks: they cost it nothing, and its indices are data.  So does whatever
reads a texture.  ``WGPU_Q4_SHADER_CHECKS=1`` keeps them all.  Dawn has no such switch: where its
matrix units are used, a whole device goes without (`wgpu_q4.device.dawn`).
"""

from __future__ import annotations

import os
from typing import Any

from wgpu_q4.device.implementation import implementation_of

ENVIRONMENT_VARIABLE = "WGPU_Q4_SHADER_CHECKS"


def may_leave_checks_out(device: Any) -> str:
    """Why not, or an empty string: whether modules of ``device`` can be made without checks."""
    if os.environ.get(ENVIRONMENT_VARIABLE, "0") not in ("", "0"):
        return f"{ENVIRONMENT_VARIABLE} is set"
    module = implementation_of(device)
    if module.__name__ != "wgpu":
        return f"{module.__name__} has no switch for a single kernel"
    native = getattr(getattr(module, "backends", None), "wgpu_native", None)
    if not hasattr(getattr(native, "lib", None), "wgpuDeviceCreateShaderModuleTrusted"):
        return "this wgpu-native has no wgpuDeviceCreateShaderModuleTrusted"
    return ""


def create_shader_module(device: Any, label: str, code: str) -> Any:
    """A ``GPUShaderModule`` of WGSL without run-time checks, by a function of wgpu.h that wgpu-py
    does not wrap.

    The source is compiled with them first, so that an error in it is reported as for any module.

    Args:
        device: one that `may_leave_checks_out`.
    """
    native = implementation_of(device).backends.wgpu_native
    ffi, lib = native.ffi, native.lib
    checked = device.create_shader_module(label=label, code=code)
    text, name = code.encode(), label.encode()
    code_bytes, label_bytes = ffi.new("char[]", text), ffi.new("char[]", name)
    source = ffi.new("WGPUShaderSourceWGSL *")
    source.chain.sType = lib.WGPUSType_ShaderSourceWGSL
    source.code.data, source.code.length = code_bytes, len(text)
    descriptor = ffi.new("WGPUShaderModuleDescriptor *")
    descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", source)
    descriptor.label.data, descriptor.label.length = label_bytes, len(name)
    no_checks = 0  # WGPUShaderRuntimeChecks_None
    handle = lib.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, no_checks)
    return type(checked)(label, handle, device)
