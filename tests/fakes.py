"""Adapters and WebGPU implementations that are not there, for tests of the choice among them."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any


def fake_adapter(device: str, kind: str = "CPU", backend: str = "Vulkan") -> Any:
    """An adapter that refuses a device."""
    info = {
        "device": device,
        "description": "a driver",
        "adapter_type": kind,
        "backend_type": backend,
    }

    def refuse(**_: Any) -> None:
        raise RuntimeError("not today")

    return SimpleNamespace(
        info=info, limits={"max-buffer-size": 7}, features=set(), request_device_sync=refuse
    )


def fake_implementation(*adapters: Any) -> ModuleType:
    """A WebGPU module that finds these adapters."""
    module = ModuleType("fakegpu")
    vars(module)["gpu"] = SimpleNamespace(enumerate_adapters_sync=lambda: list(adapters))
    return module
