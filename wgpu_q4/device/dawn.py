"""Matrix units, which Dawn offers beyond the API that it shares with wgpu.

Matrix units are an experiment of Dawn's.  They need toggles of Dawn's one instance, which must be
set before the first adapter is asked for, and features of the adapter.  A device with matrix units
is made without Dawn's checks of every index in a shader: the checks make matrix units five times
slower, and the kernels of this package stay within their buffers without them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from wgpu_q4.device.implementation import IN_BROWSER
from wgpu_q4.kernels import MatrixUnits

ENVIRONMENT_VARIABLE = "WGPU_Q4_MATRIX_UNITS"
"""If it is 0, neither the toggles of the instance nor the features of an adapter are asked for."""

FEATURES = ("chromium-experimental-subgroup-matrix", "shader-f16", "subgroups")
"""The features that the kernel on matrix units needs, all of them."""

_INSTANCE_TOGGLES = (
    "allow_unsafe_apis",  # the experimental features
    "vulkan_enable_f16_on_nvidia",
)
_UNCHECKED = ("disable_robustness", "disable_workgroup_init")


def is_wanted() -> bool:
    """Return True unless the user has turned matrix units off."""
    return os.environ.get(ENVIRONMENT_VARIABLE) != "0"


def prepare(module: ModuleType) -> None:
    """Set the toggles of Dawn's instance, unless the instance is made or configured already.

    Timestamps keep the resolution of the GPU.  Dawn would round them to 65 µs, as web pages need.
    """
    if module.__name__ != "wgpudawn" or not is_wanted():
        return
    try:
        _extras().set_instance_extras(
            enable_toggles=_INSTANCE_TOGGLES, disable_toggles=["timestamp_quantization"]
        )
    except RuntimeError:  # the instance exists: its owner decided
        return


def matrix_units(adapter_or_device: Any, adapter: Any) -> frozenset[MatrixUnits]:
    """Return what the matrix units of a device, or of an adapter, do; empty without the features.

    Args:
        adapter_or_device: the object whose features count.
        adapter: the adapter of that device, or the adapter itself.
    """
    if IN_BROWSER or not is_wanted() or not set(FEATURES) <= set(adapter_or_device.features):
        return frozenset()
    described = _extras().get_adapter_properties(adapter).get("subgroup_matrix_configs", ())
    return frozenset(map(_described, described))


def request_device(
    adapter: Any, features: Sequence[str], limits: Mapping[str, int], label: str
) -> Any:
    """Return a device with matrix units, without index checks or cleared workgroup memory."""
    return _extras().request_device_sync(
        adapter,
        label=label,
        required_features=list(dict.fromkeys((*features, *FEATURES))),
        required_limits=dict(limits),
        enable_toggles=_UNCHECKED,
    )


def _extras() -> ModuleType:
    """Return the module of Dawn's own functions, which is only there if Dawn is."""
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
