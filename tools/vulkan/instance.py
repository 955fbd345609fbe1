"""A Vulkan instance that sees one driver, with the validation layer's messages collected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from types import TracebackType
from typing import Any

import vulkan as vk

from tools.vulkan.drivers import Driver
from wgpu_q4.errors import DeviceError

VALIDATION_LAYER = "VK_LAYER_KHRONOS_validation"

_API_VERSION = vk.VK_MAKE_VERSION(1, 1, 0)
"""ExecuTorch's builder compiles for Vulkan 1.1."""

_loader_lock = RLock()


class ValidationError(AssertionError):
    """The validation layer reported something; the message is everything that it reported."""


class Instance:
    """One Vulkan instance; a context manager that destroys it.

    Attributes:
        messages: the reports of the validation layer so far.
    """

    def __init__(self, driver: Driver, validation: bool = False) -> None:
        """Load one driver.

        Args:
            driver: the only one that this instance sees.
            validation: turn on the Khronos validation layer, synchronization checks included.

        Raises:
            DeviceError: the driver does not load, or the layer is not installed.
        """
        self.driver = driver
        self.validation = validation
        self.messages: list[str] = []
        self._handle: Any = None
        self._messenger: Any = None
        # Keeps the list alive for the driver's callback.
        self._messages_handle = vk.ffi.new_handle(self.messages)
        with _loader_lock, _environment(driver.environment):
            if validation and VALIDATION_LAYER not in _layers():
                raise DeviceError(
                    f"the Vulkan layer {VALIDATION_LAYER} is not installed: on Debian or Ubuntu, "
                    f"apt-get install vulkan-validationlayers"
                )
            try:
                self._handle = vk.vkCreateInstance(self._description(), None)
            except vk.VkError as error:
                raise DeviceError(
                    f"no Vulkan instance with {driver.manifest}: {type(error).__name__}"
                ) from error
        if validation:
            create = vk.vkGetInstanceProcAddr(self._handle, "vkCreateDebugUtilsMessengerEXT")
            self._messenger = create(self._handle, self._messenger_description(), None)

    def physical_devices(self) -> list[Any]:
        """Return the devices of the driver; there are none where its hardware is absent."""
        try:
            return list(vk.vkEnumeratePhysicalDevices(self._handle))
        except vk.VkError:
            return []

    def check(self) -> None:
        """Raise `ValidationError` with the reports of the validation layer, if there are any."""
        if self.messages:
            said, self.messages[:] = "\n".join(self.messages), []
            raise ValidationError(said)

    def close(self) -> None:
        """Destroy the instance.  Objects that are still alive in it become messages."""
        if self._messenger is not None:
            destroy = vk.vkGetInstanceProcAddr(self._handle, "vkDestroyDebugUtilsMessengerEXT")
            destroy(self._handle, self._messenger, None)
            self._messenger = None
        if self._handle is not None:
            vk.vkDestroyInstance(self._handle, None)
            self._handle = None

    def __enter__(self) -> Instance:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if error is None:
            self.check()

    def _description(self) -> Any:
        application = vk.VkApplicationInfo(
            pApplicationName="wgpu_q4",
            applicationVersion=1,
            pEngineName="wgpu_q4",
            engineVersion=1,
            apiVersion=_API_VERSION,
        )
        if not self.validation:
            return vk.VkInstanceCreateInfo(pApplicationInfo=application)
        # Chained into the instance, the messenger hears its creation and destruction too.
        self._features = vk.VkValidationFeaturesEXT(
            pEnabledValidationFeatures=[
                vk.VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
            ],
            pNext=self._messenger_description(),
        )
        return vk.VkInstanceCreateInfo(
            pApplicationInfo=application,
            ppEnabledLayerNames=[VALIDATION_LAYER],
            ppEnabledExtensionNames=[
                vk.VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                vk.VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME,
            ],
            pNext=self._features,
        )

    def _messenger_description(self) -> Any:
        return vk.VkDebugUtilsMessengerCreateInfoEXT(
            messageSeverity=vk.VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT
            | vk.VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
            messageType=vk.VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
            pfnUserCallback=_collect,
            pUserData=self._messages_handle,
        )


def _collect(severity: Any, kind: Any, data: Any, user_data: Any) -> int:
    """Append a report to the messages of the instance that ``user_data`` stands for."""
    messages: list[str] = vk.ffi.from_handle(user_data)
    messages.append(vk.ffi.string(data.pMessage).decode("utf-8", "replace"))
    return 0


def _layers() -> set[str]:
    return {str(layer.layerName) for layer in vk.vkEnumerateInstanceLayerProperties()}


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables while the loader makes an instance: it does not read them afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
