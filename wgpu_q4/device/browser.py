"""WebGPU in a browser, for Python that runs there (Pyodide): wgpu-py's API on JavaScript's objects.

wgpu-py itself has no such part yet.  Here is what this package calls, and no more.  Two things
differ from wgpu:

* A browser reports errors later.  Making a buffer, a texture, a shader module or a pipeline waits
  for the answer and raises its error; errors of other calls are raised when a buffer is mapped.
* JavaScript does not know how much memory of the GPU an object holds, and may keep it for minutes.
  A buffer or texture is destroyed when the last Python object that uses it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import js
from pyodide.ffi import JsException, create_proxy

from wgpu_q4.device.browser_objects import (
    GPUBindGroup,
    GPUBindGroupLayout,
    GPUBuffer,
    GPUCommandEncoder,
    GPUComputePassEncoder,
    GPUComputePipeline,
    GPUPipelineLayout,
    GPUQueue,
    GPUShaderModule,
    GPUTexture,
)
from wgpu_q4.device.javascript import GPUError, check_can_wait, described, limits_of, wait
from wgpu_q4.errors import DeviceError

__all__ = ["GPUComputePassEncoder", "GPUError", "check_can_wait", "gpu"]

BufferUsage: Any = getattr(js, "GPUBufferUsage", None)
MapMode: Any = getattr(js, "GPUMapMode", None)
ShaderStage: Any = getattr(js, "GPUShaderStage", None)
TextureUsage: Any = getattr(js, "GPUTextureUsage", None)

T = TypeVar("T")


class _Notes:
    """What the browser reported of a device, and nobody has raised yet."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.lost = ""

    def error(self, event: Any) -> None:
        """Note an error."""
        self.errors.append(str(event.error.message))

    def loss(self, info: Any) -> None:
        """Note the loss of the device."""
        self.lost = f"the device is lost ({info.reason}): {info.message}"


class GPUDevice:
    """A device.

    Attributes:
        adapter: its adapter.
        queue: its queue.
        features: the names of its features.
        limits: its limits, by WebGPU's names with dashes.
    """

    def __init__(self, adapter: GPUAdapter, handle: Any) -> None:
        self.adapter, self.handle = adapter, handle
        self.queue = GPUQueue(self, handle.queue)
        self.features = _names(handle.features)
        self.limits = limits_of(handle.limits)
        self._notes = _Notes()  # the two proxies refer to it, and not to the device
        proxies = [create_proxy(self._notes.error), create_proxy(self._notes.loss)]
        handle.onuncapturederror = proxies[0]
        handle.lost.then(proxies[1])

    def raise_noted(self) -> None:
        """Raise what the browser reported of earlier calls.

        Raises:
            GPUError: the device is lost, or a call was wrong.
        """
        if self._notes.lost:
            raise GPUError(self._notes.lost)
        errors, self._notes.errors = self._notes.errors, []
        if errors:
            raise GPUError(errors[0])

    def _made(self, make: Callable[[Any], T], descriptor: Any) -> T:
        """Return ``make(descriptor)`` when the browser has said that it is right."""
        check_can_wait()
        filters = ("validation", "out-of-memory")
        for name in filters:
            self.handle.pushErrorScope(name)
        try:
            made = make(descriptor)
        except JsException as error:
            raise GPUError(str(error)) from error
        finally:
            answers = [self.handle.popErrorScope() for _ in filters]
        for answer in answers:
            problem = wait(answer)
            if problem:  # not JavaScript's null
                raise GPUError(str(problem.message))
        if self._notes.lost:
            raise GPUError(self._notes.lost)
        return made

    def create_buffer(self, *, label: str = "", size: int, usage: int) -> GPUBuffer:
        """Return a new buffer.

        Raises:
            GPUError: it is too large, there is no memory left, or the device is lost.
        """
        descriptor = described(label=label, size=size, usage=usage)
        return GPUBuffer(self, self._made(self.handle.createBuffer, descriptor))

    def create_texture(self, **fields: Any) -> GPUTexture:
        """Return a new texture.

        Raises:
            GPUError: as for `create_buffer`.
        """
        return GPUTexture(self, self._made(self.handle.createTexture, described(**fields)))

    def create_shader_module(self, *, label: str = "", code: str) -> GPUShaderModule:
        """Return a compiled WGSL text.

        Raises:
            GPUError: there is an error in it.
        """
        descriptor = described(label=label, code=code)
        return GPUShaderModule(self, self._made(self.handle.createShaderModule, descriptor))

    def create_bind_group_layout(self, **fields: Any) -> GPUBindGroupLayout:
        """Return the layout of bind groups."""
        handle = self.handle.createBindGroupLayout(described(**fields))
        return GPUBindGroupLayout(self, handle)

    def create_pipeline_layout(self, **fields: Any) -> GPUPipelineLayout:
        """Return the layout of a pipeline."""
        return GPUPipelineLayout(self, self.handle.createPipelineLayout(described(**fields)))

    def create_bind_group(self, **fields: Any) -> GPUBindGroup:
        """Return a bind group."""
        return GPUBindGroup(self, self.handle.createBindGroup(described(**fields)), fields)

    def create_compute_pipeline(self, **fields: Any) -> GPUComputePipeline:
        """Return a compiled kernel.

        Raises:
            GPUError: it does not compile.
        """
        pipeline = wait(self.handle.createComputePipelineAsync(described(**fields)))
        return GPUComputePipeline(self, pipeline)

    def create_command_encoder(self, *, label: str = "") -> GPUCommandEncoder:
        """Return an encoder of commands."""
        handle = self.handle.createCommandEncoder(described(label=label))
        return GPUCommandEncoder(self, handle, [])

    def destroy(self) -> None:
        """Give back all that the device holds."""
        self.handle.destroy()
        self._notes.lost = "the device is lost: it was destroyed"


class GPUAdapter:
    """An adapter of the browser.

    Attributes:
        info: what it is, as wgpu tells it.
        features: the names of its features.
        limits: its limits, by WebGPU's names with dashes.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.features = _names(handle.features)
        self.limits = limits_of(handle.limits)
        info = handle.info
        words = [str(info.vendor), str(info.architecture)]
        is_software = getattr(info, "isFallbackAdapter", False) or "swiftshader" in words
        self.info = {
            "vendor": words[0],
            "architecture": words[1],
            "device": str(info.description) or " ".join(filter(None, words)) or "a GPU",
            "description": "",
            "adapter_type": "CPU" if is_software else "Unknown",
            "backend_type": "WebGPU of the browser",
        }

    def request_device_sync(self, **fields: Any) -> GPUDevice:
        """Return a new device.

        Raises:
            GPUError: the adapter refuses it.
        """
        return GPUDevice(self, wait(self.handle.requestDevice(described(**fields))))


class GPU:
    """The way to adapters."""

    def enumerate_adapters_sync(self) -> list[GPUAdapter]:
        """Return the adapter that the browser gives for speed.

        Raises:
            DeviceError: the browser has no WebGPU here or no adapter, or nothing can be waited for.
        """
        if not hasattr(js.navigator, "gpu"):
            raise DeviceError(
                "this browser has no WebGPU here: use Chrome or Edge, and an address that begins "
                "with https:// or http://localhost"
            )
        found = wait(
            js.navigator.gpu.requestAdapter(described(power_preference="high-performance"))
        )
        if not found:
            raise DeviceError(
                "this browser finds no GPU that it lets pages use: chrome://gpu or about:support "
                "says why"
            )
        return [GPUAdapter(found)]


gpu = GPU()


def _names(features: Any) -> set[str]:
    return {str(name) for name in features.values()}
