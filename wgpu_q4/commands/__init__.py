"""The sub-commands of ``wgpu-q4``, one file each; `wgpu_q4.cli` parses and dispatches.

A sub-command is a module with ``add_arguments(parser)`` and ``run(options)``, which returns an
`answer.Answer`.  Its docstring is its help: the first line its summary, and behind ``Examples:``
examples and the object that ``--json`` prints.

* `info`        what there is to run on, and which kernels will be used
* `check`       what this adapter computes, against the float64 reference
* `bench`       this adapter's kernels and calls, beside its own copy bandwidth; `bench_model`, a
                model
* `pack`        a checkpoint's tied matrix as a packed file
* `inspect`     what an ExecuTorch program holds, and what it shares
* `kernel`      a kernel's complete WGSL, ready to be used elsewhere
* `web`         a page that runs a file's matrices on its visitor's GPU; `web_programs` and
                `web_cases` are what the page runs, and what it is held against
* `completion`  a script that completes these commands in a shell

`answer` and `progress` are shared: what a command returns, and a bar or lines while it runs.
"""
