#!/bin/sh
# Put SwiftShader, a second and stricter Vulkan driver for the CPU, into a folder.
#
# It is part of Chromium.  A browser that is installed is copied from; otherwise Debian's package
# is downloaded and only the two files are taken out of it, so nothing is installed on the system.
#
# Usage: fetch_swiftshader.sh DIRECTORY
set -eu
directory=$1
library=libvk_swiftshader.so
manifest=vk_swiftshader_icd.json

# The manifest goes last: make takes its presence for the whole.
take() {
    mkdir -p "$directory"
    cp "$1/$library" "$directory/$library"
    cp "$1/$manifest" "$directory/$manifest"
}

for browser in /usr/lib/chromium /usr/lib/chromium-browser /opt/google/chrome /opt/chromium.org/chromium; do
    if [ -f "$browser/$library" ] && [ -f "$browser/$manifest" ]; then
        take "$browser"
        exit 0
    fi
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# apt drops its privileges for the download and must be able to write there.
chmod 755 "$scratch"
mkdir -m 777 "$scratch/download"

download() {
    (cd "$scratch/download" && apt-get download -qq chromium-common) 2>"$scratch/errors"
}

# The download needs no rights; the package lists that it reads, if missing or old, do.
update_lists() {
    if [ "$(id -u)" -eq 0 ]; then
        apt-get update -qq
    else
        sudo -n apt-get update -qq
    fi
}

if command -v apt-get >/dev/null 2>&1; then
    echo "wgpu_q4: taking SwiftShader, a second Vulkan driver for the tests, from chromium-common"
    download || { update_lists 2>>"$scratch/errors" && download; } || true
fi
for package in "$scratch"/download/*.deb; do
    if [ -f "$package" ]; then
        dpkg-deb --extract "$package" "$scratch/package"
        take "$scratch/package/usr/lib/chromium"
        exit 0
    fi
done

cat "$scratch/errors" 2>/dev/null >&2 || true
echo "wgpu_q4: the tests need SwiftShader and could not download it.  Install chromium (Debian:" \
    "sudo apt-get update && sudo apt-get install chromium-common), or point" \
    "WGPU_Q4_SWIFTSHADER_ICD at a vk_swiftshader_icd.json" >&2
exit 1
