"""Results of measurements, their plots, and scripts for one question each.

The measuring itself is `tools.bench`: ``wgpu-q4 bench`` or ``python -m benchmarks``.
"""
