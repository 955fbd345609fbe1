"""Results of measurements, their plots, and scripts for one question each.

``python -m benchmarks`` measures, with `tools.bench`; ``wgpu-q4 bench`` is the smaller command of
an installed package.
"""
