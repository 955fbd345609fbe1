#!/bin/sh
# Create a virtual environment, installing Debian's venv module where it is missing.
#
# Usage: make_venv.sh PYTHON DIRECTORY
set -eu
python=$1
directory=$2
here=$(dirname "$0")

if [ "$python" != python3 ] && ! command -v "$python" >/dev/null; then
    echo "wgpu_q4: no $python here: make PYTHON=/path/to/python3" >&2
    exit 1
fi
# Debian splits ensurepip off into a package of its own; venv without it makes no pip.
if ! "$python" -c "import ensurepip, venv" 2>/dev/null; then
    "$here/apt_install.sh" python3 python3-venv
fi
if ! "$python" -c "import sys; sys.exit(sys.version_info < (3, 11))"; then
    echo "wgpu_q4: $python is $("$python" --version 2>&1); the pinned wgpu needs 3.11 or newer:" \
        "make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
"$python" -m venv "$directory"
