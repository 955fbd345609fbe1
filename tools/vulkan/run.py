"""One dispatch of one SPIR-V kernel, as ExecuTorch's Vulkan backend makes it.

Descriptor set 0, binding n is the n-th resource; push constants; specialization constants 0, 1, 2
are the workgroup's size; the grid counts invocations and is rounded up to whole workgroups.
Nothing is kept between dispatches but the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import vulkan as vk
from numpy.typing import NDArray

from tools.vulkan.dispatch import Dispatch, Outcome, upstream_local_size
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

_FORMATS = {
    "float32": vk.VK_FORMAT_R32G32B32A32_SFLOAT,
    "float16": vk.VK_FORMAT_R16G16B16A16_SFLOAT,
    "int32": vk.VK_FORMAT_R32G32B32A32_SINT,
    "uint32": vk.VK_FORMAT_R32G32B32A32_UINT,
}
_DESCRIPTORS: dict[type, int] = {
    StorageBuffer: vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    UniformBuffer: vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
    SampledImage: vk.VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    StorageImage: vk.VK_DESCRIPTOR_TYPE_STORAGE_IMAGE,
}
_FOREVER = (1 << 64) - 1
_STAGE = vk.VK_SHADER_STAGE_COMPUTE_BIT


class Run:
    """The Vulkan objects of one dispatch; ``stack`` destroys them, last made first."""

    def __init__(self, device: Device, dispatch: Dispatch, stack: ExitStack) -> None:
        self.device = device
        self.dispatch = dispatch
        self.stack = stack
        self.vk_device = device.handle
        self.local_size = dispatch.local_size or upstream_local_size(dispatch.grid)
        if dispatch.timed_runs and not device.timestamp_bits:
            raise DeviceError(f"{device.summary} has no timestamps")

    def outcome(self) -> Outcome:
        handles = [self._resource(resource) for resource in self.dispatch.resources]
        layout, pipeline = self._pipeline()
        descriptors = self._descriptors(handles)
        pool = self._keep(
            vk.vkCreateCommandPool(
                self.vk_device,
                vk.VkCommandPoolCreateInfo(queueFamilyIndex=self.device.family),
                None,
            ),
            vk.vkDestroyCommandPool,
        )
        self.commands = vk.vkAllocateCommandBuffers(
            self.vk_device,
            vk.VkCommandBufferAllocateInfo(
                commandPool=pool,
                level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                commandBufferCount=1,
            ),
        )[0]
        vk.vkBeginCommandBuffer(
            self.commands,
            vk.VkCommandBufferBeginInfo(flags=vk.VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT),
        )
        queries = self._queries()
        for resource, handle in zip(self.dispatch.resources, handles, strict=True):
            self._upload(resource, handle)
        self._barrier(
            vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
            vk.VK_ACCESS_TRANSFER_WRITE_BIT,
            vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            _SHADER_ACCESS,
        )
        vk.vkCmdBindPipeline(self.commands, vk.VK_PIPELINE_BIND_POINT_COMPUTE, pipeline)
        vk.vkCmdBindDescriptorSets(
            self.commands, vk.VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, [descriptors], 0, None
        )
        constants = self.dispatch.push_constants
        if constants:
            vk.vkCmdPushConstants(
                self.commands, layout, _STAGE, 0, len(constants), vk.ffi.from_buffer(constants)
            )
        self._dispatch(queries)
        self._barrier(
            vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            vk.VK_ACCESS_SHADER_WRITE_BIT,
            vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
            vk.VK_ACCESS_TRANSFER_READ_BIT,
        )
        staged = [self._download(binding, handles[binding]) for binding in self.dispatch.results]
        self._barrier(
            vk.VK_PIPELINE_STAGE_TRANSFER_BIT,
            vk.VK_ACCESS_TRANSFER_WRITE_BIT,
            vk.VK_PIPELINE_STAGE_HOST_BIT,
            vk.VK_ACCESS_HOST_READ_BIT,
        )
        vk.vkEndCommandBuffer(self.commands)
        self._submit()
        return Outcome(tuple(read() for read in staged), self._seconds(queries))

    def _keep(self, handle: Any, destroy: Callable[[Any, Any, Any], None]) -> Any:
        self.stack.callback(destroy, self.vk_device, handle, None)
        return handle

    # Memory

    def _allocate(self, requirements: Any, host: bool) -> Any:
        return self._keep(
            vk.vkAllocateMemory(
                self.vk_device,
                vk.VkMemoryAllocateInfo(
                    allocationSize=requirements.size,
                    memoryTypeIndex=self.device.memory_type(requirements.memoryTypeBits, host),
                ),
                None,
            ),
            vk.vkFreeMemory,
        )

    def _buffer(self, nbytes: int, usage: int, host: bool = False) -> tuple[Any, Any]:
        buffer = vk.vkCreateBuffer(
            self.vk_device,
            vk.VkBufferCreateInfo(
                size=nbytes, usage=usage, sharingMode=vk.VK_SHARING_MODE_EXCLUSIVE
            ),
            None,
        )
        self._keep(buffer, vk.vkDestroyBuffer)
        memory = self._allocate(vk.vkGetBufferMemoryRequirements(self.vk_device, buffer), host)
        vk.vkBindBufferMemory(self.vk_device, buffer, memory, 0)
        return buffer, memory

    def _staging(self, data: NDArray[Any] | None, nbytes: int) -> tuple[Any, Any]:
        usage = vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
        buffer, memory = self._buffer(nbytes, usage, host=True)
        if data is not None:
            mapped = vk.vkMapMemory(self.vk_device, memory, 0, nbytes, 0)
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            np.frombuffer(mapped, np.uint8)[:] = flat
            vk.vkUnmapMemory(self.vk_device, memory)
        return buffer, memory

    # Resources

    def _resource(self, resource: Resource) -> Any:
        if isinstance(resource, StorageBuffer | UniformBuffer):
            usage = (
                vk.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
                if isinstance(resource, StorageBuffer)
                else vk.VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT
            )
            usage |= vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
            return self._buffer(resource.data.nbytes, usage)[0]
        return self._image(resource)

    def _image(self, resource: SampledImage | StorageImage) -> Any:
        usage = (
            vk.VK_IMAGE_USAGE_STORAGE_BIT
            if isinstance(resource, StorageImage)
            else vk.VK_IMAGE_USAGE_SAMPLED_BIT
        )
        image = vk.vkCreateImage(
            self.vk_device,
            vk.VkImageCreateInfo(
                imageType=(
                    vk.VK_IMAGE_TYPE_3D if resource.dimensions == 3 else vk.VK_IMAGE_TYPE_2D
                ),
                format=_FORMATS[resource.data.dtype.name],
                extent=vk.VkExtent3D(*resource.extent),
                mipLevels=1,
                arrayLayers=1,
                samples=vk.VK_SAMPLE_COUNT_1_BIT,
                tiling=vk.VK_IMAGE_TILING_OPTIMAL,
                usage=usage
                | vk.VK_IMAGE_USAGE_TRANSFER_SRC_BIT
                | vk.VK_IMAGE_USAGE_TRANSFER_DST_BIT,
                sharingMode=vk.VK_SHARING_MODE_EXCLUSIVE,
                initialLayout=vk.VK_IMAGE_LAYOUT_UNDEFINED,
            ),
            None,
        )
        self._keep(image, vk.vkDestroyImage)
        memory = self._allocate(vk.vkGetImageMemoryRequirements(self.vk_device, image), False)
        vk.vkBindImageMemory(self.vk_device, image, memory, 0)
        return image

    def _view(self, resource: SampledImage | StorageImage, image: Any) -> Any:
        view = vk.vkCreateImageView(
            self.vk_device,
            vk.VkImageViewCreateInfo(
                image=image,
                viewType=(
                    vk.VK_IMAGE_VIEW_TYPE_3D
                    if resource.dimensions == 3
                    else vk.VK_IMAGE_VIEW_TYPE_2D
                ),
                format=_FORMATS[resource.data.dtype.name],
                subresourceRange=_WHOLE,
            ),
            None,
        )
        return self._keep(view, vk.vkDestroyImageView)

    def _sampler(self) -> Any:
        sampler = vk.vkCreateSampler(
            self.vk_device,
            vk.VkSamplerCreateInfo(
                magFilter=vk.VK_FILTER_NEAREST,
                minFilter=vk.VK_FILTER_NEAREST,
                mipmapMode=vk.VK_SAMPLER_MIPMAP_MODE_NEAREST,
                addressModeU=vk.VK_SAMPLER_ADDRESS_MODE_REPEAT,
                addressModeV=vk.VK_SAMPLER_ADDRESS_MODE_REPEAT,
                addressModeW=vk.VK_SAMPLER_ADDRESS_MODE_REPEAT,
                maxAnisotropy=1.0,
                borderColor=vk.VK_BORDER_COLOR_FLOAT_TRANSPARENT_BLACK,
            ),
            None,
        )
        return self._keep(sampler, vk.vkDestroySampler)

    # Pipeline

    def _pipeline(self) -> tuple[Any, Any]:
        bindings = [
            vk.VkDescriptorSetLayoutBinding(
                binding=binding,
                descriptorType=_DESCRIPTORS[type(resource)],
                descriptorCount=1,
                stageFlags=_STAGE,
            )
            for binding, resource in enumerate(self.dispatch.resources)
        ]
        self.set_layout = self._keep(
            vk.vkCreateDescriptorSetLayout(
                self.vk_device, vk.VkDescriptorSetLayoutCreateInfo(pBindings=bindings), None
            ),
            vk.vkDestroyDescriptorSetLayout,
        )
        pushed = len(self.dispatch.push_constants)
        ranges = [vk.VkPushConstantRange(stageFlags=_STAGE, offset=0, size=pushed)]
        layout = self._keep(
            vk.vkCreatePipelineLayout(
                self.vk_device,
                vk.VkPipelineLayoutCreateInfo(
                    pSetLayouts=[self.set_layout],
                    pPushConstantRanges=ranges if pushed else None,
                    pushConstantRangeCount=1 if pushed else 0,
                ),
                None,
            ),
            vk.vkDestroyPipelineLayout,
        )
        module = self._keep(
            vk.vkCreateShaderModule(
                self.vk_device,
                vk.VkShaderModuleCreateInfo(
                    codeSize=len(self.dispatch.spirv), pCode=self.dispatch.spirv
                ),
                None,
            ),
            vk.vkDestroyShaderModule,
        )
        # A module that needs what the device lacks crashes some drivers in the next step.
        self.device.instance.check()
        constants = dict(enumerate(self.local_size)) | dict(self.dispatch.constants)
        values = vk.ffi.new("int32_t[]", list(constants.values()))
        entries = [
            vk.VkSpecializationMapEntry(constantID=number, offset=4 * place, size=4)
            for place, number in enumerate(constants)
        ]
        stage = vk.VkPipelineShaderStageCreateInfo(
            stage=_STAGE,
            module=module,
            pName="main",
            pSpecializationInfo=vk.VkSpecializationInfo(
                pMapEntries=entries, dataSize=4 * len(constants), pData=values
            ),
        )
        pipeline = vk.vkCreateComputePipelines(
            self.vk_device,
            None,
            1,
            [vk.VkComputePipelineCreateInfo(stage=stage, layout=layout)],
            None,
        )[0]
        return layout, self._keep(pipeline, vk.vkDestroyPipeline)

    def _descriptors(self, handles: Sequence[Any]) -> Any:
        counts: dict[int, int] = {}
        for resource in self.dispatch.resources:
            kind = _DESCRIPTORS[type(resource)]
            counts[kind] = counts.get(kind, 0) + 1
        pool = self._keep(
            vk.vkCreateDescriptorPool(
                self.vk_device,
                vk.VkDescriptorPoolCreateInfo(
                    maxSets=1,
                    pPoolSizes=[
                        vk.VkDescriptorPoolSize(type=kind, descriptorCount=count)
                        for kind, count in counts.items()
                    ],
                ),
                None,
            ),
            vk.vkDestroyDescriptorPool,
        )
        descriptors = vk.vkAllocateDescriptorSets(
            self.vk_device,
            vk.VkDescriptorSetAllocateInfo(descriptorPool=pool, pSetLayouts=[self.set_layout]),
        )[0]
        writes = [
            vk.VkWriteDescriptorSet(
                dstSet=descriptors,
                dstBinding=binding,
                descriptorCount=1,
                descriptorType=_DESCRIPTORS[type(resource)],
                **self._descriptor(resource, handle),
            )
            for binding, (resource, handle) in enumerate(
                zip(self.dispatch.resources, handles, strict=True)
            )
        ]
        vk.vkUpdateDescriptorSets(self.vk_device, len(writes), writes, 0, None)
        return descriptors

    def _descriptor(self, resource: Resource, handle: Any) -> dict[str, Any]:
        if isinstance(resource, StorageBuffer | UniformBuffer):
            buffer = vk.VkDescriptorBufferInfo(buffer=handle, offset=0, range=resource.data.nbytes)
            return {"pBufferInfo": [buffer]}
        sampled = isinstance(resource, SampledImage)
        image = vk.VkDescriptorImageInfo(
            sampler=self._sampler() if sampled else None,
            imageView=self._view(resource, handle),
            imageLayout=_layout_in_shader(resource),
        )
        return {"pImageInfo": [image]}

    # Commands

    def _upload(self, resource: Resource, handle: Any) -> None:
        nbytes = resource.data.nbytes
        staging, _ = self._staging(resource.data, nbytes)
        if isinstance(resource, StorageBuffer | UniformBuffer):
            vk.vkCmdCopyBuffer(self.commands, staging, handle, 1, [vk.VkBufferCopy(0, 0, nbytes)])
            return
        self._transition(
            handle,
            (vk.VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, 0, vk.VK_IMAGE_LAYOUT_UNDEFINED),
            _COPIED_TO,
        )
        vk.vkCmdCopyBufferToImage(
            self.commands, staging, handle, _COPIED_TO[2], 1, [_texel_copy(resource)]
        )
        self._transition(handle, _COPIED_TO, _in_shader(resource))

    def _download(self, binding: int, handle: Any) -> Callable[[], NDArray[Any]]:
        resource = self.dispatch.resources[binding]
        nbytes = resource.data.nbytes
        staging, memory = self._staging(None, nbytes)
        if isinstance(resource, StorageBuffer | UniformBuffer):
            vk.vkCmdCopyBuffer(self.commands, handle, staging, 1, [vk.VkBufferCopy(0, 0, nbytes)])
        else:
            self._transition(handle, _in_shader(resource), _COPIED_FROM)
            vk.vkCmdCopyImageToBuffer(
                self.commands, handle, _COPIED_FROM[2], staging, 1, [_texel_copy(resource)]
            )

        def read() -> NDArray[Any]:
            mapped = vk.vkMapMemory(self.vk_device, memory, 0, nbytes, 0)
            values = np.frombuffer(mapped, resource.data.dtype).copy()
            vk.vkUnmapMemory(self.vk_device, memory)
            return values.reshape(resource.data.shape)

        return read

    def _barrier(self, stage: int, access: int, next_stage: int, next_access: int) -> None:
        barrier = vk.VkMemoryBarrier(srcAccessMask=access, dstAccessMask=next_access)
        vk.vkCmdPipelineBarrier(self.commands, stage, next_stage, 0, 1, [barrier], 0, None, 0, None)

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
            subresourceRange=_WHOLE,
        )
        vk.vkCmdPipelineBarrier(
            self.commands, before[0], after[0], 0, 0, None, 0, None, 1, [barrier]
        )

    def _dispatch(self, queries: Any) -> None:
        groups = [
            -(-extent // local)
            for extent, local in zip(self.dispatch.grid, self.local_size, strict=True)
        ]
        vk.vkCmdDispatch(self.commands, *groups)
        compute = vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT
        for run in range(self.dispatch.timed_runs):
            # One after the other: a run that overlapped the next would look faster than it is.
            self._barrier(compute, vk.VK_ACCESS_SHADER_WRITE_BIT, compute, _SHADER_ACCESS)
            vk.vkCmdWriteTimestamp(
                self.commands, vk.VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, queries, 2 * run
            )
            vk.vkCmdDispatch(self.commands, *groups)
            vk.vkCmdWriteTimestamp(self.commands, compute, queries, 2 * run + 1)

    def _queries(self) -> Any:
        if not self.dispatch.timed_runs:
            return None
        count = 2 * self.dispatch.timed_runs
        queries = self._keep(
            vk.vkCreateQueryPool(
                self.vk_device,
                vk.VkQueryPoolCreateInfo(queryType=vk.VK_QUERY_TYPE_TIMESTAMP, queryCount=count),
                None,
            ),
            vk.vkDestroyQueryPool,
        )
        vk.vkCmdResetQueryPool(self.commands, queries, 0, count)
        return queries

    def _seconds(self, queries: Any) -> tuple[float, ...]:
        count = 2 * self.dispatch.timed_runs
        if not count:
            return ()
        stamps = np.zeros(count, np.uint64)
        vk.vkGetQueryPoolResults(
            self.vk_device,
            queries,
            0,
            count,
            stamps.nbytes,
            vk.ffi.from_buffer(stamps),
            8,
            vk.VK_QUERY_RESULT_64_BIT | vk.VK_QUERY_RESULT_WAIT_BIT,
        )
        mask = np.uint64((1 << self.device.timestamp_bits) - 1)
        ticks = (stamps[1::2] - stamps[0::2]) & mask
        period = float(self.device.limits.timestampPeriod) * 1e-9
        return tuple(float(tick) * period for tick in ticks)

    def _submit(self) -> None:
        fence = self._keep(
            vk.vkCreateFence(self.vk_device, vk.VkFenceCreateInfo(), None), vk.vkDestroyFence
        )
        submission = vk.VkSubmitInfo(pCommandBuffers=[self.commands])
        vk.vkQueueSubmit(self.device.queue, 1, [submission], fence)
        vk.vkWaitForFences(self.vk_device, 1, [fence], vk.VK_TRUE, _FOREVER)


_SHADER_ACCESS = (
    vk.VK_ACCESS_SHADER_READ_BIT | vk.VK_ACCESS_SHADER_WRITE_BIT | vk.VK_ACCESS_UNIFORM_READ_BIT
)
_WHOLE = vk.VkImageSubresourceRange(
    aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT,
    baseMipLevel=0,
    levelCount=1,
    baseArrayLayer=0,
    layerCount=1,
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


def _layout_in_shader(resource: Resource) -> int:
    if isinstance(resource, StorageImage):
        return int(vk.VK_IMAGE_LAYOUT_GENERAL)
    return int(vk.VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL)


def _in_shader(resource: Resource) -> tuple[int, int, int]:
    access = vk.VK_ACCESS_SHADER_READ_BIT
    if isinstance(resource, StorageImage):
        access |= vk.VK_ACCESS_SHADER_WRITE_BIT
    return (vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, access, _layout_in_shader(resource))


def _texel_copy(resource: SampledImage | StorageImage) -> Any:
    """All of an image, rows tightly packed in the buffer."""
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
