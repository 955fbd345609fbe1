"""The devices that tests ask for: one with no more than every browser has, and SwiftShader's.

SwiftShader is the second Vulkan driver of the tests, and the only one here that Dawn accepts.  A
driver is chosen when a process loads Vulkan, so what runs on it runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wgpu_q4.device.adapter import list_adapters

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "WGPU_Q4_SWIFTSHADER_ICD"

HANGS = 600
"""Seconds after which a process that does a moment's work hangs, however busy the machine is."""

_CHOICES = ("WGPU_Q4_ADAPTER", "WGPU_Q4_IMPLEMENTATION")

WEBGPU_DEFAULTS = {
    "max-storage-buffer-binding-size": 1 << 27,
    "max-buffer-size": 1 << 28,
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
    "max-compute-workgroups-per-dimension": 65535,
    "max-storage-buffers-per-shader-stage": 8,
    "max-texture-dimension-2d": 8192,
    "max-texture-dimension-3d": 2048,
}
"""What the WebGPU specification grants every device."""


def default_device(implementation: str) -> Any:
    """A new device that has WebGPU's default limits and no feature."""
    adapter = list_adapters(implementation)[0]
    return adapter.request_device_sync(required_features=[], required_limits=WEBGPU_DEFAULTS)


def leave_workgroup_memory_as_it_is() -> None:
    """Have Dawn not zero it.  Call this before anything else is asked of Dawn.

    The kernels set what they read; and the zeroing takes SwiftShader's compiler four times as long
    as all else together.
    """
    from wgpudawn.backends.dawn import extras

    extras.set_instance_extras(
        enable_toggles=["disable_workgroup_init", "enable_tint_ir_validation_asserts"]
    )


def swiftshader() -> Path:
    """The driver's manifest.  Without it a test fails: skipped, it would prove nothing."""
    name = os.environ.get(VARIABLE)
    if not name:
        pytest.fail(
            f"the tests need SwiftShader, and {VARIABLE} is not set: run `make test`, which brings "
            f"it, or set the variable to a vk_swiftshader_icd.json"
        )
    path = Path(name)
    if not path.is_file():
        pytest.fail(f"{VARIABLE} names {path}, which is not a file: `make test` brings SwiftShader")
    return path


def run_python(*arguments: str, stdin: str = "", **variables: str) -> str:
    """Standard output of this Python, run with these variables; it must succeed.

    The variables with which a user chooses an adapter or an implementation are not handed on.
    """
    kept = {k: v for k, v in os.environ.items() if k not in _CHOICES}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=kept | variables,
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (
        f"{arguments} with {variables} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def drivers(vulkan: Path) -> dict[str, str]:
    """The variables that leave a process one Vulkan driver (if the file is one), and no OpenGL."""
    return {
        "VK_DRIVER_FILES": str(vulkan),
        "VK_ICD_FILENAMES": str(vulkan),  # the same to an older Vulkan loader
        "__EGL_VENDOR_LIBRARY_FILENAMES": os.devnull,
    }


def run_on_swiftshader(module: str, implementation: str, stdin: str = "") -> str:
    """Standard output of ``python -m module`` with SwiftShader as the only adapter."""
    chosen = drivers(swiftshader().resolve()) | {"WGPU_Q4_IMPLEMENTATION": implementation}
    return run_python("-m", module, stdin=stdin, **chosen)
