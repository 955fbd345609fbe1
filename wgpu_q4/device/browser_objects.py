"""The objects that a device of `wgpu_q4.device.browser` makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import finalize

import js
from pyodide.ffi import to_js

from wgpu_q4.device.javascript import GPUError, described, translated, wait

if TYPE_CHECKING:
    from wgpu_q4.device.browser import GPUDevice


class _Object:
    """An object of WebGPU.

    Attributes:
        handle: JavaScript's object.
        used: what must live as long as this object.
    """

    def __init__(self, device: GPUDevice, handle: Any, used: object = None) -> None:
        self._device = device
        self.handle = handle
        self.used = used


class GPUShaderModule(_Object):
    """A compiled WGSL text."""


class GPUBindGroupLayout(_Object):
    """The kinds of a bind group's resources."""


class GPUPipelineLayout(_Object):
    """The layouts of a pipeline's bind groups."""


class GPUBindGroup(_Object):
    """Resources for a pipeline."""


class GPUComputePipeline(_Object):
    """A compiled kernel."""

    def get_bind_group_layout(self, number: int) -> GPUBindGroupLayout:
        """Return the layout of a bind group, where the pipeline was made with ``"auto"``."""
        return GPUBindGroupLayout(self._device, self.handle.getBindGroupLayout(number))


class GPUCommandBuffer(_Object):
    """Commands to submit."""


class GPUTextureView(_Object):
    """A texture, for a bind group."""


class _Memory(_Object):
    """A buffer or a texture."""

    def __init__(self, device: GPUDevice, handle: Any) -> None:
        super().__init__(device, handle)
        finalize(self, handle.destroy).atexit = False

    def destroy(self) -> None:
        """Give the memory back now."""
        self.handle.destroy()


class GPUTexture(_Memory):
    """A texture."""

    def create_view(self) -> GPUTextureView:
        """Return a view of the whole texture."""
        return GPUTextureView(self._device, self.handle.createView(), self)


class GPUBuffer(_Memory):
    """A buffer."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.handle.size)

    @property
    def usage(self) -> int:
        """What the buffer may be used for, as flags of `BufferUsage`."""
        return int(self.handle.usage)

    @property
    def map_state(self) -> str:
        """``"unmapped"``, ``"pending"`` or ``"mapped"``."""
        return str(self.handle.mapState)

    def map_sync(self, mode: int, offset: int = 0, size: int | None = None) -> None:
        """Wait until the device has done all that uses the buffer, and map it.

        Raises:
            GPUError: the buffer cannot be mapped, or an earlier call on its device had an error.
        """
        wait(self.handle.mapAsync(mode, offset, self.size if size is None else size))
        try:
            self._device.raise_noted()
        except GPUError:
            self.handle.unmap()
            raise

    def read_mapped(
        self, offset: int = 0, size: int | None = None, *, copy: bool = True
    ) -> memoryview:
        """Return bytes of the mapped buffer, always copied: Python cannot see JavaScript's."""
        mapped = self.handle.getMappedRange(offset, self.size if size is None else size)
        found: memoryview = js.Uint8Array.new(mapped).to_memoryview()
        return found

    def unmap(self) -> None:
        """Let the device use the buffer again."""
        self.handle.unmap()


class GPUQueue(_Object):
    """The queue of a device."""

    def write_buffer(self, buffer: GPUBuffer, offset: int, data: Any) -> None:
        """Queue ``data``, C-contiguous and a multiple of 4 bytes, for the buffer."""
        self.handle.writeBuffer(buffer.handle, int(offset), _copied(data))

    def write_texture(
        self, target: Mapping[str, Any], data: Any, rows: Mapping[str, Any], size: Sequence[int]
    ) -> None:
        """Queue ``data`` for a texture."""
        extent = to_js(translated(size))
        self.handle.writeTexture(described(**target), _copied(data), described(**rows), extent)

    def submit(self, commands: Iterable[GPUCommandBuffer]) -> None:
        """Give commands to the device, and return."""
        self.handle.submit(to_js(translated(list(commands))))


def _copied(data: Any) -> Any:
    """Return the bytes of ``data`` in a typed array of JavaScript."""
    octets = memoryview(data).cast("B")
    array = js.Uint8Array.new(octets.nbytes)
    array.assign(octets)
    return array


class GPUComputePassEncoder(_Object):
    """Dispatches to record; ``used`` is the list of the encoder."""

    used: list[object]

    def set_pipeline(self, pipeline: GPUComputePipeline) -> None:
        """Choose the kernel of the dispatches that follow."""
        self.handle.setPipeline(pipeline.handle)

    def set_bind_group(self, number: int, group: GPUBindGroup) -> None:
        """Choose the resources of the dispatches that follow."""
        self.used.append(group)
        self.handle.setBindGroup(number, group.handle)

    def dispatch_workgroups(self, x: int, y: int = 1, z: int = 1) -> None:
        """Record a dispatch."""
        self.handle.dispatchWorkgroups(int(x), int(y), int(z))

    def end(self) -> None:
        """End the pass."""
        self.handle.end()


class GPUCommandEncoder(_Object):
    """Commands to record; ``used`` is what they use."""

    used: list[object]

    def begin_compute_pass(self, *, label: str = "") -> GPUComputePassEncoder:
        """Return a new pass, which must end before the next command."""
        started = self.handle.beginComputePass(described(label=label))
        return GPUComputePassEncoder(self._device, started, self.used)

    def copy_buffer_to_buffer(
        self, source: GPUBuffer, offset: int, target: GPUBuffer, target_offset: int, size: int
    ) -> None:
        """Record a copy of ``size`` bytes."""
        self.used += [source, target]
        self.handle.copyBufferToBuffer(
            source.handle, int(offset), target.handle, int(target_offset), int(size)
        )

    def copy_texture_to_buffer(
        self, source: Mapping[str, Any], target: Mapping[str, Any], size: Sequence[int]
    ) -> None:
        """Record a copy of texels."""
        self.used += [source, target]
        extent = to_js(translated(size))
        self.handle.copyTextureToBuffer(described(**source), described(**target), extent)

    def finish(self) -> GPUCommandBuffer:
        """Return the commands."""
        return GPUCommandBuffer(self._device, self.handle.finish(), self.used)
