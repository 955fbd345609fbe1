#!/bin/sh
# Make sure that shaders can be compiled, checked and run under Vulkan's validation layer.
#
# Usage: ensure_shader_tools.sh
set -eu
here=$(dirname "$0")

layer_is_installed() {
    for folder in /usr/share /usr/local/share /etc "$HOME/.local/share"; do
        if [ -f "$folder/vulkan/explicit_layer.d/VkLayer_khronos_validation.json" ]; then
            return 0
        fi
    done
    return 1
}

missing=""
command -v glslc >/dev/null 2>&1 || missing="$missing glslc"
command -v spirv-val >/dev/null 2>&1 || missing="$missing spirv-tools"
layer_is_installed || missing="$missing vulkan-validationlayers"
if [ -n "$missing" ]; then
    # The words of $missing are packages: unquoted on purpose.
    "$here/apt_install.sh" $missing
fi
