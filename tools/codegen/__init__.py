"""ExecuTorch's shaders, generated from the WGSL kernels.

``python -m tools.codegen`` writes ``vulkan_glsl/``; with ``--check`` it compares instead.  It needs
naga-wasm, which ``make naga`` installs.
"""

from tools.codegen.build import build, registered
from tools.codegen.generate import FOLDER, generate

__all__ = ["FOLDER", "build", "generate", "registered"]
