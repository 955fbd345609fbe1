"""Every backend against the float64 reference, on the same cases.

The cases and the oracle are those of ``wgpu-q4 check`` (`wgpu_q4.check`).

* `random_cases`  further cases, drawn with a seed
* `contract`      a case as a dispatch of ExecuTorch's kernels
* `backends`      what computes a case, by name
* `worker`        one backend in a process of its own, with the Vulkan driver it needs
* `harness`       cases × backends
* `report`        the terminal, JSON, HTML
* `command`       ``python -m tools.parity``
"""
