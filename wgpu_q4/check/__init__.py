"""``wgpu-q4 check``: what this adapter and its driver compute, against the float64 reference.

* `cases`     a case of the embedding or of packing
* `lists`     ExecuTorch's own cases, and the corners that these miss
* `oracle`    the right result of a case, and how far a result is from it
* `excuses`   differences that are known, and where they may occur
* `lookup`    a case, computed by this package on a device
* `products`  checks of ``linear``, ``argmax`` and ``top_k``
* `finding`   what a check found
* `checks`    all checks, in order
* `process`   a process of its own that answers line by line, and may crash
* `worker`    that process: runs the checks on one adapter
* `runner`    starts that process, and another after a crash
* `report`    all findings as text and as JSON
"""
