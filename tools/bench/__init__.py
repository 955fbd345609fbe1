"""Measurements on any adapter, beside what others make of the same job: ``wgpu-q4 bench``.

One file per idea:

* `timing`      seconds of dispatches and of calls, and how they were taken
* `ceilings`    what the adapter can do at most: copy, read, arithmetic
* `accounting`  the bytes that a job must move, and its floating-point operations
* `jobs`        this package's kernels, each measured by itself
* `calls`       this package's calls, numpy to numpy
* `peers`       the same jobs by torch and ONNX Runtime
* `suite`       which of all these are measured
* `document`    the figures as JSON
* `table`       the figures as text
* `plots`       the figures as pictures
* `command`     the options, and the run itself

Timings never gate a test.
"""
