"""``wgpu-q4 bench``: this adapter's kernels and whole calls, beside its own copy bandwidth.

* `timing`      seconds of dispatches and of calls, and how they were taken
* `ceilings`    what the adapter reaches at most: copy, read, arithmetic
* `accounting`  the bytes that a job must move, and its floating-point operations
* `jobs`        the kernels, each measured alone
* `calls`       whole calls, numpy to numpy
* `result`      one measured job
* `table`       a result as a line of text
* `shapes`      the shapes of tied matrices, by the names of their models
* `model`       a whole model: its prompt, its steps, and their parts; `model_peers`, others beside
"""
