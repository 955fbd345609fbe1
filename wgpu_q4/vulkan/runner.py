"""One dispatch of one SPIR-V kernel, as ExecuTorch's Vulkan backend makes it.

Descriptor set 0, binding n is the n-th resource; push constants; specialization constants 0, 1, 2
are the workgroup's size; the grid counts invocations and is rounded up to whole workgroups.
Nothing is kept between dispatches but the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import vulkan as vk
from numpy.typing import NDArray

from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.vulkan.drivers import find_driver
from wgpu_q4.vulkan.instance import Instance
from wgpu_q4.vulkan.resources import (
    Resource,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
)

Size = tuple[int, int, int]

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
_KIND_NAMES = {
    vk.VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: "integrated GPU",
    vk.VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: "discrete GPU",
    vk.VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: "virtual GPU",
    vk.VK_PHYSICAL_DEVICE_TYPE_CPU: "CPU",
}
_USEFUL_EXTENSIONS = (
    "VK_KHR_16bit_storage",
    "VK_KHR_8bit_storage",
    "VK_KHR_shader_float16_int8",
    "VK_KHR_driver_properties",
)
_FOREVER = (1 << 64) - 1
_STAGE = vk.VK_SHADER_STAGE_COMPUTE_BIT


def upstream_local_size(grid: Size) -> Size:
    """The workgroup that ExecuTorch takes for a grid of invocations.

    64 along the only dimension, 16×4 or 32×2 over two, 8×4×2 or less over three; the larger
    numbers go to the longer dimensions.
    """
    order = sorted(range(3), key=lambda axis: -grid[axis])
    longest, middle, shortest = (grid[axis] for axis in order)
    if middle == 1:
        sizes = (64, 1, 1)
    elif shortest == 1:
        sizes = (32, 2, 1) if middle < 4 else (16, 4, 1)
    else:
        # At most 8 × 4 × 2, and no power of two beyond what a dimension can use.
        sizes = (
            min(8, _next_power_of_two(longest)),
            min(4, _next_power_of_two(middle)),
            min(2, _next_power_of_two(shortest)),
        )
    local = [1, 1, 1]
    for axis, size in zip(order, sizes, strict=True):
        local[axis] = size
    return local[0], local[1], local[2]


def _next_power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


@dataclass(frozen=True)
class Dispatch:
    """A kernel and everything it is given.

    Attributes:
        spirv: the module; its entry point is ``main``.
        resources: for set 0, in the order of the bindings.
        grid: invocations in x, y, z.
        local_size: the workgroup; by default `upstream_local_size` of the grid.
        push_constants: their bytes.
        constants: further specialization constants (from 3 on), 32-bit integers.
        results: the bindings to read back.
        timed_runs: how often to run it again, measured by timestamps on the device.
    """

    spirv: bytes
    resources: Sequence[Resource]
    grid: Size
    local_size: Size | None = None
    push_constants: bytes = b""
    constants: Mapping[int, int] = field(default_factory=dict)
    results: Sequence[int] = (0,)
    timed_runs: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a dispatch left: the contents of its results, and seconds of each timed run."""

    results: tuple[NDArray[Any], ...]
    seconds: tuple[float, ...] = ()


class Device:
    """A logical device with one compute queue; a context manager that destroys it.

    Attributes:
        name: the device's name.
        kind: ``"discrete GPU"``, ``"CPU"`` and so on.
        summary: one line: device, driver, versions.
    """

    def __init__(
        self, driver: str = "lavapipe", name: str | None = None, validation: bool = False
    ) -> None:
        """Open a device.

        Args:
            driver: a driver's short name or the path of its manifest; see `drivers`.
            name: part of the device's name, in any case; None for the driver's first device.
            validation: turn the validation layer on; what it says makes `run` and `close` raise.

        Raises:
            DeviceError: no such driver or device, or no layer.
        """
        self.instance = Instance(find_driver(driver), validation)
        self._handle: Any = None
        try:
            self._physical = self._choose(name)
            self._describe()
            self._open()
        except BaseException:
            self.close(check=False)
            raise
        self.instance.check()

    def run(self, dispatch: Dispatch) -> Outcome:
        """Run a dispatch and wait for it.

        Raises:
            DeviceLimitError: a resource or the workgroup exceeds what the device allows.
            DeviceError: the driver refuses the module or the dispatch.
            ValidationError: the validation layer is on and not content.
        """
        self._check_limits(dispatch)
        try:
            with ExitStack() as stack:
                outcome = _Run(self, dispatch, stack).outcome()
        except vk.VkError as error:
            said = "; ".join(self.instance.messages)
            raise DeviceError(
                f"{self.summary}: {type(error).__name__}{': ' if said else ''}{said}"
            ) from error
        self.instance.check()
        return outcome

    def close(self, check: bool = True) -> None:
        """Destroy device and instance; raise what the validation layer says of it."""
        if self._handle is not None:
            vk.vkDestroyDevice(self._handle, None)
            self._handle = None
        self.instance.close()
        if check:
            self.instance.check()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(check=error is None)

    def _choose(self, name: str | None) -> Any:
        devices = self.instance.physical_devices()
        names = [str(vk.vkGetPhysicalDeviceProperties(device).deviceName) for device in devices]
        for device, found in zip(devices, names, strict=True):
            if name is None or name.lower() in found.lower():
                return device
        driver = self.instance.driver.name
        if name is None:
            raise DeviceError(f"the Vulkan driver {driver} finds no device here")
        raise DeviceError(f"{driver} has no device called {name!r}, only: {', '.join(names)}")

    def _describe(self) -> None:
        self._offered = {
            str(extension.extensionName)
            for extension in vk.vkEnumerateDeviceExtensionProperties(self._physical, None)
        }
        # Only by pointer do the driver's answers come back into the chained struct.
        driver = vk.ffi.new("VkPhysicalDeviceDriverProperties*")
        driver.sType = vk.VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES
        properties = vk.ffi.new("VkPhysicalDeviceProperties2*")
        properties.sType = vk.VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2
        if "VK_KHR_driver_properties" in self._offered:
            properties.pNext = driver
        vk.vkGetPhysicalDeviceProperties2(self._physical, properties)
        self.limits: Any = properties.properties.limits
        self._properties = properties
        self.name = vk.ffi.string(properties.properties.deviceName).decode()
        self.kind = _KIND_NAMES.get(properties.properties.deviceType, "other")
        driver_name = vk.ffi.string(driver.driverName).decode() or self.instance.driver.name
        details = vk.ffi.string(driver.driverInfo).decode()
        api = properties.properties.apiVersion
        self.summary = (
            f"{self.name} (Vulkan {api >> 22}.{api >> 12 & 0x3FF}.{api & 0xFFF}, "
            f"{driver_name}{' ' if details else ''}{details}, {self.kind})"
        )
        self._memory = vk.vkGetPhysicalDeviceMemoryProperties(self._physical)

    def _open(self) -> None:
        families = vk.vkGetPhysicalDeviceQueueFamilyProperties(self._physical)
        self.family = next(
            index
            for index, family in enumerate(families)
            if family.queueFlags & vk.VK_QUEUE_COMPUTE_BIT
        )
        self._timestamp_bits = families[self.family].timestampValidBits
        extensions = [name for name in _USEFUL_EXTENSIONS if name in self._offered]
        features, self._kept = self._features()
        queue = vk.VkDeviceQueueCreateInfo(
            queueFamilyIndex=self.family, queueCount=1, pQueuePriorities=[1.0]
        )
        description = vk.VkDeviceCreateInfo(
            queueCreateInfoCount=1,
            pQueueCreateInfos=[queue],
            ppEnabledExtensionNames=extensions,
            pNext=features,
        )
        try:
            self._handle = vk.vkCreateDevice(self._physical, description, None)
        except vk.VkError as error:
            raise DeviceError(f"{self.name} refuses a device: {type(error).__name__}") from error
        self.queue = vk.vkGetDeviceQueue(self._handle, self.family, 0)

    def _features(self) -> tuple[Any, list[Any]]:
        """Everything that narrow types need, where the device has it; no robust access."""
        chain = [vk.ffi.new("VkPhysicalDeviceFeatures2*")]
        chain[0].sType = vk.VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2
        wanted = {
            "VK_KHR_16bit_storage": (
                "VkPhysicalDevice16BitStorageFeatures*",
                vk.VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES,
            ),
            "VK_KHR_8bit_storage": (
                "VkPhysicalDevice8BitStorageFeatures*",
                vk.VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES,
            ),
            "VK_KHR_shader_float16_int8": (
                "VkPhysicalDeviceShaderFloat16Int8Features*",
                vk.VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
            ),
        }
        for extension, (kind, number) in wanted.items():
            if extension in self._offered:
                chain.append(vk.ffi.new(kind))
                chain[-1].sType = number
                chain[-2].pNext = chain[-1]
        vk.vkGetPhysicalDeviceFeatures2(self._physical, chain[0])
        # As in ExecuTorch: with robust access on, a read out of bounds would go unnoticed.
        chain[0].features.robustBufferAccess = vk.VK_FALSE
        return vk.ffi.cast("void*", chain[0]), chain

    def _check_limits(self, dispatch: Dispatch) -> None:
        if min(dispatch.grid) < 1:
            raise ValueError(f"the grid must be at least 1 in each dimension, not {dispatch.grid}")
        local = dispatch.local_size or upstream_local_size(dispatch.grid)
        invocations = local[0] * local[1] * local[2]
        if invocations > self.limits.maxComputeWorkGroupInvocations:
            raise DeviceLimitError(
                f"a workgroup of {local} exceeds the {self.limits.maxComputeWorkGroupInvocations} "
                f"invocations of {self.summary}"
            )
        for binding, resource in enumerate(dispatch.resources):
            if isinstance(resource, StorageBuffer | UniformBuffer):
                storage = isinstance(resource, StorageBuffer)
                limit = (
                    self.limits.maxStorageBufferRange
                    if storage
                    else self.limits.maxUniformBufferRange
                )
                size, unit = resource.data.nbytes, "bytes"
            else:
                limit = (
                    self.limits.maxImageDimension3D
                    if resource.dimensions == 3
                    else self.limits.maxImageDimension2D
                )
                size, unit = max(resource.extent), "texels in a dimension"
            if size > limit:
                raise DeviceLimitError(
                    f"binding {binding} has {size:,} {unit}; {self.summary} allows {limit:,}"
                )

    def memory_type(self, allowed: int, host: bool) -> int:
        """The first memory type among the bits ``allowed`` that suits host access or the device."""
        wanted = (
            vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
            if host
            else vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
        )
        for index in range(self._memory.memoryTypeCount):
            flags = self._memory.memoryTypes[index].propertyFlags
            if allowed >> index & 1 and flags & wanted == wanted:
                return index
        raise DeviceError(f"{self.summary} has no memory of the kind that is needed")


class _Run:
    """The Vulkan objects of one dispatch; ``stack`` destroys them, last made first."""

    def __init__(self, device: Device, dispatch: Dispatch, stack: ExitStack) -> None:
        self.device = device
        self.dispatch = dispatch
        self.stack = stack
        self.vk_device = device._handle
        self.local_size = dispatch.local_size or upstream_local_size(dispatch.grid)
        if dispatch.timed_runs and not device._timestamp_bits:
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
        mask = np.uint64((1 << self.device._timestamp_bits) - 1)
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
