"""The memory of one dispatch: buffers, images, and what views them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import vulkan as vk
from numpy.typing import NDArray

from tools.vulkan.resources import (
    Resource,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
)

if TYPE_CHECKING:
    from tools.vulkan.device import Device

_FORMATS = {
    "float32": vk.VK_FORMAT_R32G32B32A32_SFLOAT,
    "float16": vk.VK_FORMAT_R16G16B16A16_SFLOAT,
    "int32": vk.VK_FORMAT_R32G32B32A32_SINT,
    "uint32": vk.VK_FORMAT_R32G32B32A32_UINT,
}

WHOLE = vk.VkImageSubresourceRange(
    aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT,
    baseMipLevel=0,
    levelCount=1,
    baseArrayLayer=0,
    layerCount=1,
)
"""All texels of an image."""


class Memory:
    """Makes Vulkan objects; ``stack`` destroys them, the last one first."""

    def __init__(self, device: Device, stack: ExitStack) -> None:
        self._device = device
        self._handle = device.handle
        self._stack = stack

    def keep(self, handle: Any, destroy: Callable[[Any, Any, Any], None]) -> Any:
        """Return ``handle``, and destroy it when the stack is closed."""
        self._stack.callback(destroy, self._handle, handle, None)
        return handle

    def _allocate(self, requirements: Any, host: bool) -> Any:
        return self.keep(
            vk.vkAllocateMemory(
                self._handle,
                vk.VkMemoryAllocateInfo(
                    allocationSize=requirements.size,
                    memoryTypeIndex=self._device.memory_type(requirements.memoryTypeBits, host),
                ),
                None,
            ),
            vk.vkFreeMemory,
        )

    def _buffer(self, nbytes: int, usage: int, host: bool = False) -> tuple[Any, Any]:
        buffer = vk.vkCreateBuffer(
            self._handle,
            vk.VkBufferCreateInfo(
                size=nbytes, usage=usage, sharingMode=vk.VK_SHARING_MODE_EXCLUSIVE
            ),
            None,
        )
        self.keep(buffer, vk.vkDestroyBuffer)
        memory = self._allocate(vk.vkGetBufferMemoryRequirements(self._handle, buffer), host)
        vk.vkBindBufferMemory(self._handle, buffer, memory, 0)
        return buffer, memory

    def staging(self, data: NDArray[Any] | None, nbytes: int) -> tuple[Any, Any]:
        """Return a buffer that the host can map, and its memory; ``data`` goes into it."""
        usage = vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
        buffer, memory = self._buffer(nbytes, usage, host=True)
        if data is not None:
            mapped = vk.vkMapMemory(self._handle, memory, 0, nbytes, 0)
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            np.frombuffer(mapped, np.uint8)[:] = flat
            vk.vkUnmapMemory(self._handle, memory)
        return buffer, memory

    def resource(self, resource: Resource) -> Any:
        """Return a buffer or an image for a resource; its contents are undefined."""
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
            self._handle,
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
        self.keep(image, vk.vkDestroyImage)
        memory = self._allocate(vk.vkGetImageMemoryRequirements(self._handle, image), False)
        vk.vkBindImageMemory(self._handle, image, memory, 0)
        return image

    def view(self, resource: SampledImage | StorageImage, image: Any) -> Any:
        """Return a view of all texels of an image."""
        view = vk.vkCreateImageView(
            self._handle,
            vk.VkImageViewCreateInfo(
                image=image,
                viewType=(
                    vk.VK_IMAGE_VIEW_TYPE_3D
                    if resource.dimensions == 3
                    else vk.VK_IMAGE_VIEW_TYPE_2D
                ),
                format=_FORMATS[resource.data.dtype.name],
                subresourceRange=WHOLE,
            ),
            None,
        )
        return self.keep(view, vk.vkDestroyImageView)

    def sampler(self) -> Any:
        """Return a sampler that takes the nearest texel."""
        sampler = vk.vkCreateSampler(
            self._handle,
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
        return self.keep(sampler, vk.vkDestroySampler)
