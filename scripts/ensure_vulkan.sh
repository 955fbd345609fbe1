#!/bin/sh
# Make sure that wgpu finds an adapter it can compute on; install Mesa's CPU driver if not.
#
# Usage: ensure_vulkan.sh PYTHON      (a Python that has wgpu)
set -eu
python=$1
here=$(dirname "$0")

"$python" -c "import wgpu"

# Lists the adapters that run compute shaders.  OpenGL does not count where it is what is left:
# it is what wgpu offers when Vulkan, Metal and DX12 are all missing.
adapters() {
    "$python" - 2>/dev/null <<'PYTHON'
import wgpu

for adapter in wgpu.gpu.enumerate_adapters_sync():
    if adapter.info["backend_type"] in ("Vulkan", "Metal", "D3D12"):
        print(f"  {adapter.summary}")
PYTHON
}

found=$(adapters || true)
if [ -z "$found" ]; then
    echo "wgpu_q4: no Vulkan adapter here; Mesa's driver for the CPU stands in for a GPU"
    "$here/apt_install.sh" mesa-vulkan-drivers libvulkan1
    found=$(adapters || true)
fi
if [ -z "$found" ]; then
    echo "wgpu_q4: still no Vulkan adapter with mesa-vulkan-drivers and libvulkan1 installed;" \
        "vulkaninfo --summary (package vulkan-tools) says what the loader sees" >&2
    exit 1
fi
echo "wgpu_q4: adapters:"
echo "$found"
