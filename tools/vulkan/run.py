"""One dispatch of one SPIR-V kernel, as ExecuTorch's Vulkan backend makes it.

Descriptor set 0, binding n is the n-th resource; push constants; specialization constants 0, 1, 2
are the workgroup's size; the grid counts invocations and is rounded up to whole workgroups.
Nothing but the device is kept between dispatches.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import vulkan as vk
from numpy.typing import NDArray

from tools.vulkan.dispatch import Dispatch, Outcome, upstream_local_size
from tools.vulkan.memory import WHOLE, Memory
from tools.vulkan.pipeline import STAGE, Pipeline, layout_in_shader
from tools.vulkan.resources import (
    Resource,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
)
from wgpu_q4.errors import DeviceError

if TYPE_CHECKING:
    from tools.vulkan.device import Device

_FOREVER = (1 << 64) - 1
_SHADER_ACCESS = (
    vk.VK_ACCESS_SHADER_READ_BIT | vk.VK_ACCESS_SHADER_WRITE_BIT | vk.VK_ACCESS_UNIFORM_READ_BIT
)
_COPIED_TO = (
    vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
    vk.VK_ACCESS_TRANSFER_WRITE_BIT,
    vk.VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
)
_COPIED_FROM = (
    vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
    vk.VK_ACCESS_TRANSFER_READ_BIT,
    vk.VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
)
"""Stage, access and layout of an image while it is copied to or from."""


class Run:
    """Records the commands of one dispatch and submits them; ``stack`` destroys the objects."""

    def __init__(self, device: Device, dispatch: Dispatch, stack: ExitStack) -> None:
        self._device = device
        self._handle = device.handle
        self._dispatch = dispatch
        self._memory = Memory(device, stack)
        self._local_size = dispatch.local_size or upstream_local_size(dispatch.grid)
        if dispatch.timed_runs and not device.timestamp_bits:
            raise DeviceError(f"{device.summary} has no timestamps")

    def outcome(self) -> Outcome:
        """Run the dispatch and wait for it."""
        handles = [self._memory.resource(resource) for resource in self._dispatch.resources]
        pipeline = Pipeline(self._device, self._memory, self._dispatch, self._local_size)
        descriptors = pipeline.descriptors(handles)
        self._commands = self._begin()
        queries = self._queries()
        for resource, handle in zip(self._dispatch.resources, handles, strict=True):
            self._upload(resource, handle)
        self._barrier(
            vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
            vk.VK_ACCESS_TRANSFER_WRITE_BIT,
            vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            _SHADER_ACCESS,
        )
        compute, layout = vk.VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout
        vk.vkCmdBindPipeline(self._commands, compute, pipeline.handle)
        vk.vkCmdBindDescriptorSets(self._commands, compute, layout, 0, 1, [descriptors], 0, None)
        constants = self._dispatch.push_constants
        if constants:
            vk.vkCmdPushConstants(
                self._commands, layout, STAGE, 0, len(constants), vk.ffi.from_buffer(constants)
            )
        self._run(queries)
        self._barrier(
            vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            vk.VK_ACCESS_SHADER_WRITE_BIT,
            vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
            vk.VK_ACCESS_TRANSFER_READ_BIT,
        )
        staged = [self._download(binding, handles[binding]) for binding in self._dispatch.results]
        self._barrier(
            vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
            vk.VK_ACCESS_TRANSFER_WRITE_BIT,
            vk.VK_PIPELINE_STAGE_HOST_BIT,
            vk.VK_ACCESS_HOST_READ_BIT,
        )
        vk.vkEndCommandBuffer(self._commands)
        self._submit()
        return Outcome(tuple(read() for read in staged), self._seconds(queries))

    def _begin(self) -> Any:
        pool = self._memory.keep(
            vk.vkCreateCommandPool(
                self._handle,
                vk.VkCommandPoolCreateInfo(queueFamilyIndex=self._device.family),
                None,
            ),
            vk.vkDestroyCommandPool,
        )
        commands = vk.vkAllocateCommandBuffers(
            self._handle,
            vk.VkCommandBufferAllocateInfo(
                commandPool=pool,
                level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                commandBufferCount=1,
            ),
        )[0]
        vk.vkBeginCommandBuffer(
            commands,
            vk.VkCommandBufferBeginInfo(flags=vk.VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT),
        )
        return commands

    def _upload(self, resource: Resource, handle: Any) -> None:
        nbytes = resource.data.nbytes
        staging, _ = self._memory.staging(resource.data, nbytes)
        if isinstance(resource, StorageBuffer | UniformBuffer):
            vk.vkCmdCopyBuffer(self._commands, staging, handle, 1, [vk.VkBufferCopy(0, 0, nbytes)])
            return
        self._transition(
            handle,
            (vk.VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, 0, vk.VK_IMAGE_LAYOUT_UNDEFINED),
            _COPIED_TO,
        )
        vk.vkCmdCopyBufferToImage(
            self._commands, staging, handle, _COPIED_TO[2], 1, [_texel_copy(resource)]
        )
        self._transition(handle, _COPIED_TO, _in_shader(resource))

    def _download(self, binding: int, handle: Any) -> Callable[[], NDArray[Any]]:
        resource = self._dispatch.resources[binding]
        nbytes = resource.data.nbytes
        staging, memory = self._memory.staging(None, nbytes)
        if isinstance(resource, StorageBuffer | UniformBuffer):
            vk.vkCmdCopyBuffer(self._commands, handle, staging, 1, [vk.VkBufferCopy(0, 0, nbytes)])
        else:
            self._transition(handle, _in_shader(resource), _COPIED_FROM)
            vk.vkCmdCopyImageToBuffer(
                self._commands, handle, _COPIED_FROM[2], staging, 1, [_texel_copy(resource)]
            )

        def read() -> NDArray[Any]:
            mapped = vk.vkMapMemory(self._handle, memory, 0, nbytes, 0)
            values = np.frombuffer(mapped, resource.data.dtype).copy()
            vk.vkUnmapMemory(self._handle, memory)
            return values.reshape(resource.data.shape)

        return read

    def _barrier(self, stage: int, access: int, next_stage: int, next_access: int) -> None:
        barrier = vk.VkMemoryBarrier(srcAccessMask=access, dstAccessMask=next_access)
        vk.vkCmdPipelineBarrier(
            self._commands, stage, next_stage, 0, 1, [barrier], 0, None, 0, None
        )

    def _transition(
        self, image: Any, before: tuple[int, int, int], after: tuple[int, int, int]
    ) -> None:
        barrier = vk.VkImageMemoryBarrier(
            srcAccessMask=before[1],
            dstAccessMask=after[1],
            oldLayout=before[2],
            newLayout=after[2],
            srcQueueFamilyIndex=vk.VK_QUEUE_FAMILY_IGNORED,
            dstQueueFamilyIndex=vk.VK_QUEUE_FAMILY_IGNORED,
            image=image,
            subresourceRange=WHOLE,
        )
        vk.vkCmdPipelineBarrier(
            self._commands, before[0], after[0], 0, 0, None, 0, None, 1, [barrier]
        )

    def _run(self, queries: Any) -> None:
        groups = [
            -(-extent // local)
            for extent, local in zip(self._dispatch.grid, self._local_size, strict=True)
        ]
        vk.vkCmdDispatch(self._commands, *groups)
        compute = vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT
        for run in range(self._dispatch.timed_runs):
            # One after the other: a run that overlapped the next would look faster than it is.
            self._barrier(compute, vk.VK_ACCESS_SHADER_WRITE_BIT, compute, _SHADER_ACCESS)
            vk.vkCmdWriteTimestamp(
                self._commands, vk.VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, queries, 2 * run
            )
            vk.vkCmdDispatch(self._commands, *groups)
            vk.vkCmdWriteTimestamp(self._commands, compute, queries, 2 * run + 1)

    def _queries(self) -> Any:
        if not self._dispatch.timed_runs:
            return None
        count = 2 * self._dispatch.timed_runs
        queries = self._memory.keep(
            vk.vkCreateQueryPool(
                self._handle,
                vk.VkQueryPoolCreateInfo(queryType=vk.VK_QUERY_TYPE_TIMESTAMP, queryCount=count),
                None,
            ),
            vk.vkDestroyQueryPool,
        )
        vk.vkCmdResetQueryPool(self._commands, queries, 0, count)
        return queries

    def _seconds(self, queries: Any) -> tuple[float, ...]:
        count = 2 * self._dispatch.timed_runs
        if not count:
            return ()
        stamps = np.zeros(count, np.uint64)
        vk.vkGetQueryPoolResults(
            self._handle,
            queries,
            0,
            count,
            stamps.nbytes,
            vk.ffi.from_buffer(stamps),
            8,
            vk.VK_QUERY_RESULT_64_BIT | vk.VK_QUERY_RESULT_WAIT_BIT,
        )
        mask = np.uint64((1 << self._device.timestamp_bits) - 1)
        ticks = (stamps[1::2] - stamps[0::2]) & mask
        period = float(self._device.limits.timestampPeriod) * 1e-9
        return tuple(float(tick) * period for tick in ticks)

    def _submit(self) -> None:
        fence = self._memory.keep(
            vk.vkCreateFence(self._handle, vk.VkFenceCreateInfo(), None), vk.vkDestroyFence
        )
        submission = vk.VkSubmitInfo(pCommandBuffers=[self._commands])
        vk.vkQueueSubmit(self._device.queue, 1, [submission], fence)
        vk.vkWaitForFences(self._handle, 1, [fence], vk.VK_TRUE, _FOREVER)


def _in_shader(resource: Resource) -> tuple[int, int, int]:
    access = vk.VK_ACCESS_SHADER_READ_BIT
    if isinstance(resource, StorageImage):
        access |= vk.VK_ACCESS_SHADER_WRITE_BIT
    return (vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, access, layout_in_shader(resource))


def _texel_copy(resource: SampledImage | StorageImage) -> Any:
    """Return the copy of a whole image; its rows are tightly packed in the buffer."""
    return vk.VkBufferImageCopy(
        bufferOffset=0,
        bufferRowLength=0,
        bufferImageHeight=0,
        imageSubresource=vk.VkImageSubresourceLayers(
            aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT, mipLevel=0, baseArrayLayer=0, layerCount=1
        ),
        imageOffset=vk.VkOffset3D(0, 0, 0),
        imageExtent=vk.VkExtent3D(*resource.extent),
    )
