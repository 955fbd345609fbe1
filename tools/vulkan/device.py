"""A Vulkan device with one compute queue, which runs dispatches one at a time."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import vulkan as vk

from tools.vulkan.dispatch import Dispatch, Outcome, upstream_local_size
from tools.vulkan.drivers import find_driver
from tools.vulkan.instance import Instance
from tools.vulkan.resources import StorageBuffer, UniformBuffer
from tools.vulkan.run import Run
from wgpu_q4.errors import DeviceError, DeviceLimitError

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
            validation: turn the validation layer on; `run` and `close` raise what it reports.

        Raises:
            DeviceError: no such driver or device, or no layer.
        """
        self.instance = Instance(find_driver(driver), validation)
        self.handle: Any = None
        try:
            self._physical = self._choose(name)
            self._describe()
            self._open()
        except BaseException:
            self.close(check=False)
            raise
        self.instance.check()

    def run(self, dispatch: Dispatch) -> Outcome:
        """Run a dispatch, wait for it, and return what it left.

        Raises:
            DeviceLimitError: a resource or the workgroup exceeds what the device allows.
            DeviceError: the driver refuses the module or the dispatch.
            ValidationError: the validation layer is on and reports something.
        """
        self._check_limits(dispatch)
        try:
            with ExitStack() as stack:
                outcome = Run(self, dispatch, stack).outcome()
        except vk.VkError as error:
            said = "; ".join(self.instance.messages)
            raise DeviceError(
                f"{self.summary}: {type(error).__name__}{': ' if said else ''}{said}"
            ) from error
        self.instance.check()
        return outcome

    def close(self, check: bool = True) -> None:
        """Destroy device and instance; with ``check``, raise what the validation layer reports."""
        if self.handle is not None:
            vk.vkDestroyDevice(self.handle, None)
            self.handle = None
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
        self.timestamp_bits = families[self.family].timestampValidBits
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
            self.handle = vk.vkCreateDevice(self._physical, description, None)
        except vk.VkError as error:
            raise DeviceError(f"{self.name} refuses a device: {type(error).__name__}") from error
        self.queue = vk.vkGetDeviceQueue(self.handle, self.family, 0)

    def _features(self) -> tuple[Any, list[Any]]:
        """Return the features that narrow types need, as far as the device has them."""
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
        # Off, as in ExecuTorch: with robust access, a read out of bounds would go unnoticed.
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
        """Return the first type among the bits ``allowed`` that suits the host, or the device."""
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
