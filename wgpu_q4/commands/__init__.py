"""The sub-commands of ``wgpu-q4``, one file each; `wgpu_q4.cli` parses and dispatches.

A sub-command is a module with ``HELP``, ``add_arguments(parser)`` and ``run(options)``, which
returns the exit status.

* `info`     what there is to run on, and which kernels will be used
* `inspect`  what an ExecuTorch program holds, and what it shares
* `kernel`   a kernel's complete WGSL, ready to be used elsewhere
* `check`    what this adapter computes, against the float64 reference
<<<<<<< HEAD
* `bench`    this adapter's kernels and calls, beside its own copy bandwidth; `bench_model`, a model
=======
* `bench`    this adapter's kernels and calls, beside its own copy bandwidth
* `web`      a page that runs a file's matrices on its visitor's GPU; `web_programs` and `web_cases`
             are what the page runs, and what it is held against
>>>>>>> c8cde8e (wgpu-q4 web writes a page that runs a file's matrices in its visitor's browser)

`progress` is shared: a bar, or lines of text.
"""
