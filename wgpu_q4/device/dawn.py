"""What Dawn offers beyond the API that it shares with wgpu: matrix units.

They are Dawn's experiment, behind a toggle of its one instance, which must be set before the first
adapter is asked for, and behind features of an adapter that has them.  Where they are used, Dawn's
checks of every index in a kernel are left out too: with them, matrix units are five times slower.
The kernels of this package keep within their buffers by themselves.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from wgpu_q4.kernels import MatrixUnits

ENVIRONMENT_VARIABLE = "WGPU_Q4_MATRIX_UNITS"
"""Set to 0, neither the instance's toggles nor an adapter's features are asked for."""

FEATURES = ("chromium-experimental-subgroup-matrix", "shader-f16", "subgroups")
"""What the kernel for matrix units needs, all of it."""

_INSTANCE_TOGGLES = (
    "allow_unsafe_apis",  # the experimental features
    "vulkan_enable_f16_on_nvidia",
)
_UNCHECKED = ("disable_robustness", "disable_workgroup_init")


def is_wanted() -> bool:
    """Whether matrix units are used where they are."""
    return os.environ.get(ENVIRONMENT_VARIABLE) != "0"


def prepare(module: ModuleType) -> None:
    """Set the toggles of Dawn's instance, unless somebody made or configured it already.

    Timestamps are left as the GPU gives them; Dawn would round them to 65 µs, for web pages.
    """
    if module.__name__ != "wgpudawn" or not is_wanted():
        return
    try:
        _extras().set_instance_extras(
            enable_toggles=_INSTANCE_TOGGLES, disable_toggles=["timestamp_quantization"]
        )
    except RuntimeError:  # there is one already: its owner decided
        return


def matrix_units(adapter_or_device: Any, adapter: Any) -> frozenset[MatrixUnits]:
    """What the matrix units of a device, or of an adapter, do: nothing where a feature is absent.

    Args:
        adapter_or_device: whose features count.
        adapter: the adapter of that device, or itself.
    """
    if not is_wanted() or not set(FEATURES) <= set(adapter_or_device.features):
        return frozenset()
    described = _extras().get_adapter_properties(adapter).get("subgroup_matrix_configs", ())
    return frozenset(map(_described, described))


def request_device(
    adapter: Any, features: Sequence[str], limits: Mapping[str, int], label: str
) -> Any:
    """A device with matrix units that checks no index and does not clear workgroup memory."""
    return _extras().request_device_sync(
        adapter,
        label=label,
        required_features=list(dict.fromkeys((*features, *FEATURES))),
        required_limits=dict(limits),
        enable_toggles=_UNCHECKED,
    )


def _extras() -> ModuleType:
    """Dawn's own functions, asked for only where it is what runs."""
    return importlib.import_module("wgpudawn.backends.dawn.extras")


def _described(config: Mapping[str, Any]) -> MatrixUnits:
    return MatrixUnits(
        config["m"],
        config["n"],
        config["k"],
        str(config["component_type"]),
        str(config["result_component_type"]),
        config["min_subgroup_size"],
        config["max_subgroup_size"],
    )
