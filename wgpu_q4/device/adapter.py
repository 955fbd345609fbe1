"""The choice of an adapter, and devices that have everything their adapter offers."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from threading import RLock
from types import ModuleType
from typing import Any

from wgpu_q4.device import dawn, leaving
from wgpu_q4.device.implementation import check_process, load_implementation
from wgpu_q4.device.interrupts import Postponed
from wgpu_q4.errors import DeviceError

ENVIRONMENT_VARIABLE = "WGPU_Q4_ADAPTER"

MAPPABLE = "mappable-primary-buffers"
"""wgpu-native's feature of buffers that a kernel writes and the host maps."""

USEFUL_FEATURES = ("timestamp-query", "shader-f16", "subgroup", "subgroups", MAPPABLE)
"""A device gets those of them that its adapter has; without them it gets other kernels."""

_KINDS = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "Unknown", "CPU")
_BACKENDS = ("Metal", "Vulkan", "D3D12", "OpenGL")

_INSTALL_HINT = (
    "Install a driver: on Debian or Ubuntu without a GPU, 'apt-get install mesa-vulkan-drivers' "
    "brings one that runs on the processor. Then start Python (in a notebook, the kernel) again. "
    "Without a driver, embedding(ids, weight, device='host') looks rows up in numpy"
)


class SoftwareAdapterWarning(UserWarning):
    """Only an adapter that runs on the processor was found; it works, slowly."""


def is_software(adapter: Any) -> bool:
    """Return True if an adapter runs on the processor."""
    return bool(adapter.info["adapter_type"] == "CPU")


def adapter_summary(adapter: Any) -> str:
    """Return one line on an adapter: its device, backend, driver and kind."""
    info = adapter.info
    driver = f", {info['description']}" if info["description"] else ""
    return f"{info['device']} ({info['backend_type']}{driver}, {info['adapter_type']})"


def list_adapters(implementation: str | ModuleType | None = None) -> list[Any]:
    """Return all adapters, best first.

    The order is discrete, integrated, virtual, software; among equals, native APIs precede OpenGL.

    Raises:
        DeviceError: no such implementation, or this process is a fork of one that used a device.
    """
    check_process()
    module = load_implementation(implementation)
    dawn.prepare(module)

    def rank(adapter: Any) -> tuple[int, int]:
        info = adapter.info
        return _position(_KINDS, info["adapter_type"]), _position(_BACKENDS, info["backend_type"])

    adapters = _adapters_of(module)
    return sorted(adapters, key=rank)


_asking = RLock()  # the collector may run a __del__ that asks, too
leaving.wait_for_lock(_asking)
_kept: dict[ModuleType, list[Any]] = {}
_released_never: list[list[Any]] = []


def _adapters_of(module: ModuleType) -> list[Any]:
    """Return the adapters of an implementation; wgpu is asked once.

    wgpu-native aborts the process when one thread lets go of an OpenGL adapter while another one
    asks for adapters, so its adapters are never let go of.  Each of wgpudawn's makes one device
    and no more, so it is asked every time.
    """
    with _asking:
        found = _kept.get(module)
        if found is None:
            with Postponed():
                found = module.gpu.enumerate_adapters_sync()
            if module.__name__ == "wgpu":
                _kept[module] = found
        return found


def _ask_again(module: ModuleType) -> None:
    """Have the next call ask for adapters: one of them may be gone."""
    with _asking:
        if module in _kept:
            _released_never.append(_kept.pop(module))


def choose_adapter(
    name: str | int | None = None,
    implementation: str | ModuleType | None = None,
    *,
    announce: bool = True,
) -> Any:
    """Return the adapter whose summary contains ``name``; without a name, the best one.

    Args:
        name: part of an adapter's summary, in any case; by default ``WGPU_Q4_ADAPTER``.  Or the
            place of an adapter in `list_adapters`, from 0.
        implementation: the WebGPU module or its name.
        announce: give a warning, once, if there are only software adapters.

    Raises:
        TypeError: ``name`` is neither a string nor an integer, or an empty string.
        DeviceError: there is no adapter, or none of that name or in that place; the message lists
            those there are.  Or this process is a fork of one that used a device.
    """
    is_empty = isinstance(name, str) and not name.strip()
    if is_empty or isinstance(name, bool) or not isinstance(name, str | int | None):
        raise TypeError(
            f"adapter must be part of an adapter's name, its place among the adapters, or None, "
            f"not {name!r}"
        )
    adapters = list_adapters(implementation)
    if not adapters:
        module = load_implementation(implementation)
        raise DeviceError(f"{module.__name__} finds no GPU adapter. {_INSTALL_HINT}")
    if name is None:
        name = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if isinstance(name, int):
        if not 0 <= name < len(adapters):
            there = "; ".join(map(adapter_summary, adapters))
            raise DeviceError(f"there is no adapter {name}. From 0 on there are: {there}")
        return adapters[name]
    if name is not None:
        named = [item for item in adapters if name.lower() in adapter_summary(item).lower()]
        if not named:
            there = "; ".join(map(adapter_summary, adapters))
            raise DeviceError(f"no adapter is called {name!r}. There are: {there}")
        return named[0]
    if announce and is_software(adapters[0]):
        _warn_once(adapter_summary(adapters[0]))
    return adapters[0]


def request_device(
    adapter: str | int | None = None, implementation: str | ModuleType | None = None
) -> Any:
    """Return a new device with all limits of its adapter, for the ``device=`` of every op.

    Through wgpudawn, a device with matrix units (see `wgpu_q4.device.dawn`) checks no index in any
    shader: run no shader on it that relies on those checks.  With ``WGPU_Q4_MATRIX_UNITS=0`` the
    device has neither matrix units nor that gap.

    Args:
        adapter: part of the adapter's name; by default ``WGPU_Q4_ADAPTER``, else the best one.  Or
            its place in the list that ``wgpu-q4 info`` prints, from 0: GPUs of one kind have the
            same name.
        implementation: ``"wgpu"``, ``"wgpudawn"`` or such a module; by default
            ``WGPU_Q4_IMPLEMENTATION``, else ``wgpu``.

    Raises:
        DeviceError: there is no adapter (of that name), or it refuses a device.
    """
    chosen = choose_adapter(adapter, implementation)
    features = [name for name in USEFUL_FEATURES if name in chosen.features]
    try:
        with Postponed():
            if dawn.matrix_units(chosen, chosen):
                return dawn.request_device(chosen, features, chosen.limits, "wgpu_q4")
            return chosen.request_device_sync(
                label="wgpu_q4", required_features=features, required_limits=dict(chosen.limits)
            )
    except Exception as error:
        _ask_again(load_implementation(implementation))
        raise DeviceError(f"{adapter_summary(chosen)} refuses a device: {error}") from error


def _position(order: Sequence[str], item: str) -> int:
    return order.index(item) if item in order else len(order) - 1


_warned: set[str] = set()


def _warn_once(summary: str) -> None:
    if summary not in _warned:
        _warned.add(summary)
        warnings.warn(
            f"no GPU was found: wgpu_q4 runs on the processor, through {summary}. "
            f"Results are the same, speed is not",
            SoftwareAdapterWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """Return the ``stacklevel`` with which `_warn_once` points outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("wgpu_q4"):
        level, frame = level + 1, frame.f_back
    return level
