"""A device in words, for a program that tells its user what it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wgpu_q4 import rich
from wgpu_q4.device.context import context_for


@dataclass(frozen=True)
class DeviceInfo:
    """A device, in words.

    Attributes:
        adapter: one line: the adapter's name, backend, driver and kind.
        software: True if the adapter runs on the processor.
        implementation: the module that the device came from: ``"wgpu"``, ``"wgpudawn"``, or
            ``"wgpu_q4.device.browser"`` for Python in a browser.
        largest_binding: bytes of packed weight, or of scales, that the device can bind.
    """

    adapter: str
    software: bool
    implementation: str
    largest_binding: int

    def _repr_html_(self) -> str:
        rows: list[rich.Row] = [
            ("adapter", self.adapter),
            ("runs on", "the processor" if self.software else "a GPU"),
            ("implementation", self.implementation),
            ("largest binding", self.largest_binding),
        ]
        return rich.table("Device", rows)


def device_info(device: Any = None) -> DeviceInfo:
    """Return a description of the device that an op uses for the same ``device``.

    ``wgpu-q4 info`` prints more.

    Args:
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.

    Raises:
        TypeError: ``device`` is something else.
        DeviceError: there is no such adapter.
    """
    context = context_for(device)
    return DeviceInfo(
        context.adapter_summary,
        context.is_software,
        context.implementation.__name__,
        context.largest_binding,
    )
