"""ExecuTorch's shaders, generated from the WGSL kernels.

``python -m tools.codegen`` writes ``vulkan_glsl/``, and with ``--check`` compares it with what
would be written.  For maintainers, in a checkout: it needs the extra ``dev`` and naga-wasm, which
``make naga`` installs.
"""

from tools.codegen.build import build, registered
from tools.codegen.generate import FOLDER, generate

__all__ = ["FOLDER", "build", "generate", "registered"]
