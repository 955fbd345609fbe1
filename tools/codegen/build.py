"""GLSL to SPIR-V, by the builder that the executorch wheel ships."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_BUILDER = "backends/vulkan/runtime/gen_vulkan_spv.py"
_REGISTERED = re.compile(r'ShaderInfo\(\s*"(\w+)",\s*\w+,\s*\d+,\s*\{([^}]*)\}')


def build(folder: Path, out: Path, *options: str) -> dict[str, Path]:
    """Build every shader of a GLSL folder as ExecuTorch does.

    Args:
        folder: ``.glsl``, ``.glslh`` and ``.yaml`` files, ours or ExecuTorch's.
        out: the folder for the ``.spv`` files, the expanded ``.glsl`` files and ``spv.cpp``; it
            is made if it is missing.
        options: further options of ``gen_vulkan_spv.py``.

    Returns:
        The ``.spv`` file of each kernel, by name.

    Raises:
        FileNotFoundError: no such folder, no executorch package, or no ``glslc``.
        RuntimeError: the builder refused a shader; the message is the builder's.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of GLSL shaders")
    glslc = shutil.which("glslc")
    if glslc is None:
        raise FileNotFoundError("glslc is not installed; Debian: apt-get install glslc")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                *(sys.executable, str(_builder()), "-i", str(folder), "-o", str(out)),
                *("-t", scratch, "-c", glslc, *options),
            ],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"gen_vulkan_spv.py failed for {folder}:\n{done.stderr[-4000:]}")
    return {name: out / f"{name}.spv" for name in registered(out)}


def registered(out: Path) -> dict[str, tuple[str, ...]]:
    """Return the kernels of a finished build, each with the types of its descriptors in order.

    The types are Vulkan's names without ``VK_DESCRIPTOR_TYPE_``.
    """
    source = (out / "spv.cpp").read_text(encoding="utf-8")
    return {
        name: tuple(re.findall(r"VK_DESCRIPTOR_TYPE_(\w+)", layout))
        for name, layout in _REGISTERED.findall(source)
    }


def _builder() -> Path:
    package = importlib.util.find_spec("executorch")
    for location in (package and package.submodule_search_locations) or ():
        builder = Path(location) / _BUILDER
        if builder.is_file():
            return builder
    raise FileNotFoundError(
        f"executorch with {_BUILDER} is not installed: pip install executorch==1.5.1"
    )
