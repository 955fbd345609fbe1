"""ExecuTorch's shaders, generated from the WGSL kernels.

``python -m tools.codegen`` writes ``vulkan_glsl/`` and ``webgpu_wgsl/``; with ``--check`` it
compares instead.  It needs naga-wasm, which ``make naga`` installs.
"""

from collections.abc import Callable
from pathlib import Path

from tools.codegen import webgpu
from tools.codegen.build import build, registered
from tools.codegen.generate import generate

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "vulkan_glsl"
WEBGPU_FOLDER = ROOT / "webgpu_wgsl"

GENERATED: dict[str, Callable[[], dict[str, str]]] = {
    FOLDER.name: generate,
    WEBGPU_FOLDER.name: webgpu.generate,
}
"""Folder → the function that returns its files: name → text."""

__all__ = ["FOLDER", "GENERATED", "ROOT", "WEBGPU_FOLDER", "build", "generate", "registered"]
