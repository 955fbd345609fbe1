#!/bin/sh
# Install Debian packages, if this user may; otherwise say which, and fail.
#
# Usage: apt_install.sh PACKAGE...
set -eu

root=""
if ! command -v apt-get >/dev/null 2>&1; then
    echo "wgpu_q4: please install, with this system's package manager, what Debian calls: $*" >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        root="sudo -n"
    else
        echo "wgpu_q4: this needs a package; please run: sudo apt-get install $*" >&2
        exit 1
    fi
fi

echo "wgpu_q4: installing $* with apt-get"
# The words of $root are the command: unquoted on purpose.
$root apt-get -o DPkg::Lock::Timeout=600 update -qq
$root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends \
    "$@" >/dev/null
