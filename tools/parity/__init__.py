"""Every backend against the float64 reference, on the same cases.

* `cases`      what is computed: ExecuTorch's own 34 cases, the corners they miss, random ones
* `oracle`     what must come out, and how far a result is from it
* `contract`   a case as a dispatch of ExecuTorch's kernels
* `backends`   who computes it, by name
* `worker`     one backend in a process of its own, with the Vulkan driver it needs
* `harness`    cases × backends
* `report`     the terminal, JSON, HTML
* `command`    ``wgpu-q4 parity``
"""

from tools.parity.cases import Case, corner_cases, random_cases, upstream_cases

__all__ = ["Case", "corner_cases", "random_cases", "upstream_cases"]
