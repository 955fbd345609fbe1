"""The Vulkan drivers of this machine, by the manifests that the Vulkan loader reads.

A manifest is a small JSON file that names a driver's library.  The loader takes the manifests in
some well-known folders, or those that the environment names; naming one chooses a driver.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wgpu_q4.errors import DeviceError

SWIFTSHADER_VARIABLE = "WGPU_Q4_SWIFTSHADER_ICD"
"""The environment variable with the path of SwiftShader's manifest, which is in no folder."""

_SELECTION = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
"""What the loader reads: the first since 1.3.207, the second before."""

_NAMES = {"vulkan_lvp": "lavapipe", "vk_swiftshader": "swiftshader"}


@dataclass(frozen=True)
class Driver:
    """A driver by a short name, such as ``lavapipe``, ``swiftshader``, ``nvidia``, ``radeon``."""

    name: str
    manifest: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return environment variables with which the Vulkan loader sees this driver only."""
        return dict.fromkeys(_SELECTION, str(self.manifest))

    @property
    def is_software(self) -> bool:
        """Return True for the two drivers that are known to run on the processor."""
        return self.name in _NAMES.values()


def list_drivers(environment: Mapping[str, str] | None = None) -> list[Driver]:
    """Return all drivers whose manifest is found, sorted by name.

    The environment may select manifests for the loader; without a selection, the loader's folders
    are searched.  SwiftShader is added where ``WGPU_Q4_SWIFTSHADER_ICD`` points at its manifest.
    """
    variables = os.environ if environment is None else environment
    selected = next((variables[name] for name in _SELECTION if variables.get(name)), None)
    if selected:
        manifests = [Path(entry) for entry in selected.split(os.pathsep) if entry]
    else:
        manifests = [path for folder in _folders(variables) for path in sorted(folder.glob("*"))]
    swiftshader = variables.get(SWIFTSHADER_VARIABLE)
    if swiftshader:
        manifests.append(Path(swiftshader))
    drivers: dict[str, Driver] = {}
    for manifest in manifests:
        name = _name(manifest)
        if name is not None:
            drivers.setdefault(name, Driver(name, manifest.resolve()))
    return sorted(drivers.values(), key=lambda driver: driver.name)


def find_driver(name: str) -> Driver:
    """Return the driver of that short name, or of the manifest at that path.

    Raises:
        DeviceError: there is no such driver; the message lists the drivers that there are.
    """
    if name.endswith(".json"):
        found = _name(Path(name))
        if found is None:
            raise DeviceError(f"{name} is not the manifest of a Vulkan driver")
        return Driver(found, Path(name).resolve())
    drivers = list_drivers()
    for driver in drivers:
        if driver.name == name:
            return driver
    there = ", ".join(driver.name for driver in drivers) or "none"
    raise DeviceError(
        f"no Vulkan driver is called {name!r}; there are: {there}. lavapipe is Debian's package "
        f"mesa-vulkan-drivers; for SwiftShader, set {SWIFTSHADER_VARIABLE} to its "
        f"vk_swiftshader_icd.json"
    )


def _folders(variables: Mapping[str, str]) -> list[Path]:
    home = Path(variables.get("HOME", "/"))
    roots = [
        variables.get("XDG_CONFIG_HOME") or str(home / ".config"),
        *(variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep),
        "/etc",
        variables.get("XDG_DATA_HOME") or str(home / ".local/share"),
        *(variables.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep),
    ]
    return [Path(root) / "vulkan" / "icd.d" for root in roots if root]


def _name(manifest: Path) -> str | None:
    """Return the driver's short name: a known one for its library, else the manifest's name."""
    try:
        library = json.loads(manifest.read_text(encoding="utf-8"))["ICD"]["library_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    stem = Path(library).name.partition(".")[0].removeprefix("lib")
    return _NAMES.get(stem) or manifest.name.partition(".")[0].removesuffix("_icd")
