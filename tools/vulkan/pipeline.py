"""The pipeline of one dispatch, and the descriptors that bind its resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import vulkan as vk

from tools.vulkan.dispatch import Dispatch, Size
from tools.vulkan.memory import Memory
from tools.vulkan.resources import (
    Resource,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
)

if TYPE_CHECKING:
    from tools.vulkan.device import Device

_DESCRIPTORS: dict[type, int] = {
    StorageBuffer: vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    UniformBuffer: vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
    SampledImage: vk.VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    StorageImage: vk.VK_DESCRIPTOR_TYPE_STORAGE_IMAGE,
}
STAGE = vk.VK_SHADER_STAGE_COMPUTE_BIT


class Pipeline:
    """A compute pipeline.

    Attributes:
        handle: the pipeline.
        layout: the pipeline's layout: descriptor set 0 and the push constants.
    """

    def __init__(
        self, device: Device, memory: Memory, dispatch: Dispatch, local_size: Size
    ) -> None:
        """Compile the kernel of a dispatch.

        Args:
            device: compiles it.
            memory: keeps the objects.
            dispatch: the kernel, its resources and constants.
            local_size: the workgroup, which specialization constants 0, 1 and 2 hold.
        """
        self._device = device
        self._handle = device.handle
        self._memory = memory
        self._dispatch = dispatch
        bindings = [
            vk.VkDescriptorSetLayoutBinding(
                binding=binding,
                descriptorType=_DESCRIPTORS[type(resource)],
                descriptorCount=1,
                stageFlags=STAGE,
            )
            for binding, resource in enumerate(self._dispatch.resources)
        ]
        self._set_layout = self._memory.keep(
            vk.vkCreateDescriptorSetLayout(
                self._handle, vk.VkDescriptorSetLayoutCreateInfo(pBindings=bindings), None
            ),
            vk.vkDestroyDescriptorSetLayout,
        )
        pushed = len(self._dispatch.push_constants)
        ranges = [vk.VkPushConstantRange(stageFlags=STAGE, offset=0, size=pushed)]
        self.layout = self._memory.keep(
            vk.vkCreatePipelineLayout(
                self._handle,
                vk.VkPipelineLayoutCreateInfo(
                    pSetLayouts=[self._set_layout],
                    pPushConstantRanges=ranges if pushed else None,
                    pushConstantRangeCount=1 if pushed else 0,
                ),
                None,
            ),
            vk.vkDestroyPipelineLayout,
        )
        module = self._memory.keep(
            vk.vkCreateShaderModule(
                self._handle,
                vk.VkShaderModuleCreateInfo(
                    codeSize=len(self._dispatch.spirv), pCode=self._dispatch.spirv
                ),
                None,
            ),
            vk.vkDestroyShaderModule,
        )
        # A module that needs what the device lacks crashes some drivers in the next step.
        self._device.instance.check()
        constants = dict(enumerate(local_size)) | dict(self._dispatch.constants)
        values = vk.ffi.new("int32_t[]", list(constants.values()))
        entries = [
            vk.VkSpecializationMapEntry(constantID=number, offset=4 * place, size=4)
            for place, number in enumerate(constants)
        ]
        stage = vk.VkPipelineShaderStageCreateInfo(
            stage=STAGE,
            module=module,
            pName="main",
            pSpecializationInfo=vk.VkSpecializationInfo(
                pMapEntries=entries, dataSize=4 * len(constants), pData=values
            ),
        )
        pipeline = vk.vkCreateComputePipelines(
            self._handle,
            None,
            1,
            [vk.VkComputePipelineCreateInfo(stage=stage, layout=self.layout)],
            None,
        )[0]
        self.handle = self._memory.keep(pipeline, vk.vkDestroyPipeline)

    def descriptors(self, handles: Sequence[Any]) -> Any:
        """Return a descriptor set that binds the dispatch's resources, given by their handles."""
        counts: dict[int, int] = {}
        for resource in self._dispatch.resources:
            kind = _DESCRIPTORS[type(resource)]
            counts[kind] = counts.get(kind, 0) + 1
        pool = self._memory.keep(
            vk.vkCreateDescriptorPool(
                self._handle,
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
            self._handle,
            vk.VkDescriptorSetAllocateInfo(descriptorPool=pool, pSetLayouts=[self._set_layout]),
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
                zip(self._dispatch.resources, handles, strict=True)
            )
        ]
        vk.vkUpdateDescriptorSets(self._handle, len(writes), writes, 0, None)
        return descriptors

    def _descriptor(self, resource: Resource, handle: Any) -> dict[str, Any]:
        if isinstance(resource, StorageBuffer | UniformBuffer):
            buffer = vk.VkDescriptorBufferInfo(buffer=handle, offset=0, range=resource.data.nbytes)
            return {"pBufferInfo": [buffer]}
        sampled = isinstance(resource, SampledImage)
        image = vk.VkDescriptorImageInfo(
            sampler=self._memory.sampler() if sampled else None,
            imageView=self._memory.view(resource, handle),
            imageLayout=layout_in_shader(resource),
        )
        return {"pImageInfo": [image]}


def layout_in_shader(resource: Resource) -> int:
    """Return the layout that an image must have while a kernel runs."""
    if isinstance(resource, StorageImage):
        return int(vk.VK_IMAGE_LAYOUT_GENERAL)
    return int(vk.VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL)
