"""Whether this process was forked from one that used a GPU driver, through this package or not.

The driver is in use from the moment when wgpu or wgpudawn has an instance.  They keep it in an
attribute that is not part of their API; without it, only uses by this package are known.
"""

from __future__ import annotations

import os
import sys

_INSTANCES = ("wgpu.backends.wgpu_native._helpers", "wgpudawn.backends.dawn._helpers")

parent_used_a_driver = False


def _note() -> None:
    global parent_used_a_driver
    for name in _INSTANCES:
        if getattr(sys.modules.get(name), "_the_instance", None) is not None:
            parent_used_a_driver = True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_note)
