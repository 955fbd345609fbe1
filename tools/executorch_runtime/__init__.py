"""Exported programs run by ExecuTorch's own runtime, and compared with the eager programs.

    make executorch-runtime RUNNER=path/to/executor_runner

RUNNER is the executable ``executor_runner`` of a stock build of ExecuTorch with its Vulkan or its
WebGPU backend.  The Python package of ExecuTorch has no such runtime.

* `cases`    which programs: shapes of ids, group sizes, heads, shared and untied
* `export`   a case as a ``.pte``, with the ids, the eager results and their error bounds
* `runner`   one run of the executable
* `verdict`  what a run is worth: rows to the last bit, logits within a bound
* `command`  the options, the table, the exit status
"""
