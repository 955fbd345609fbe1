"""ExecuTorch's shaders, generated from the WGSL kernels.

``python -m wgpu_q4.codegen`` writes ``vulkan_glsl/``, and with ``--check`` compares it with what
would be written.  For maintainers, in a checkout: it needs the extra ``dev`` and naga-wasm, which
``make naga`` installs.
"""

from wgpu_q4.codegen.build import build, registered
from wgpu_q4.codegen.generate import FOLDER, generate

__all__ = ["FOLDER", "build", "generate", "registered"]
