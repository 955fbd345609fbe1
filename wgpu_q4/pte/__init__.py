"""What an ExecuTorch program (``.pte``) holds, read without ExecuTorch.

* `flatbuffer`  tables, vectors and strings of a flatbuffer, every bound checked
* `program`     the tables of a program, and its segments
* `graph`       the graph that ExecuTorch's Vulkan backend runs
* `report`      `inspect_pte`: which ops read which bytes, and what sharing saves

Flatbuffers number their fields, and ExecuTorch only ever adds fields.  So one reader suits the
programs of every release that writes the file identifier ``ET12``.
"""

from wgpu_q4.pte.report import PteReport, inspect_pte

__all__ = ["PteReport", "inspect_pte"]
