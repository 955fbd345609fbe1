"""Which backends run: by default those that every machine must have, and those of its GPUs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from tools.vulkan.drivers import list_drivers

REQUIRED = (
    "numpy",
    "executorch",
    "wgpu/lavapipe",
    "wgpu/swiftshader",
    "wgpudawn/swiftshader",
    "vulkan/lavapipe",
    "vulkan/swiftshader",
    "chromium/swiftshader",
    "drop-in-wgpu/lavapipe",
    "drop-in-wgpudawn/swiftshader",
)
"""The backends of every run that does not leave them out by name."""

_KINDS = ("wgpu", "wgpudawn", "vulkan", "drop-in-wgpu", "drop-in-wgpudawn")
_ALL_KINDS = ("numpy", "executorch", *_KINDS, "glsl-dir", "chromium")


def choose_backends(
    only: Sequence[str] = (), without: Sequence[str] = (), glsl_dir: Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the names of the backends that run, and those left out with the reason.

    Args:
        only: run these backends and no others; ``vulkan`` stands for ``vulkan/`` on every driver.
        without: leave these backends out.
        glsl_dir: also run the kernels of this folder of GLSL, as ``glsl-dir/`` on every driver.

    Raises:
        ValueError: a name that no backend has.
    """
    left_out = {
        "wgpudawn/lavapipe": "Dawn refuses Mesa's CPU driver of Debian 12: it lacks a feature"
    }
    names = list(REQUIRED)
    for driver in list_drivers():
        if driver.is_software:
            continue
        if _has_device(driver.name):
            names += [f"{kind}/{driver.name}" for kind in _KINDS]
        else:
            left_out[f"*/{driver.name}"] = "the driver is installed, its hardware is not here"
    if glsl_dir is not None:
        names += [
            name.replace("vulkan/", "glsl-dir/") for name in names if name.startswith("vulkan/")
        ]
    for pattern in (*only, *without):
        # A name may be of a backend that is not here; it then fails, unless it is left out.
        kind, slash, _ = pattern.partition("/")
        if kind not in _ALL_KINDS or (slash and kind in ("numpy", "executorch")):
            raise ValueError(f"no backend is called {pattern!r}; there are: {', '.join(names)}")
        if kind == "glsl-dir" and glsl_dir is None:
            raise ValueError(f"{pattern!r} needs a folder of GLSL: use --glsl-dir")
    if only:
        chosen = [name for name in names if _matches(name, only)]
        chosen += [name for name in only if "/" in name and name not in chosen]
        left_out |= {name: "not among those of --only" for name in names if name not in chosen}
        names = chosen
    left_out |= {name: "left out by name" for name in names if _matches(name, without)}
    return [name for name in names if not _matches(name, without)], left_out


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or name.partition("/")[0] == pattern for pattern in patterns)


@cache
def _has_device(driver: str) -> bool:
    """Return True if the driver finds a device.

    A process of its own asks: some drivers end a process that loads them without hardware.
    """
    script = (
        "import sys; from tools.vulkan import Device; Device(sys.argv[1]).close(); print('yes')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, driver], capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip() == "yes"
