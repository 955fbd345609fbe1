"""Measurements on an adapter, beside other libraries on the same jobs: ``python -m benchmarks``.

The timing, the kernels and the calls are those of ``wgpu-q4 bench`` (`wgpu_q4.bench`).

* `transfers`     packing, upload and readback
* `peers`         the same jobs by torch and ONNX Runtime
* `suite`         the selection and the order of all jobs
* `document`      the figures as JSON
* `surroundings`  the adapter, the host and the versions of a run
* `plots`         the figures as pictures
* `command`       the options, and the run itself

Timings never gate a test.
"""
