"""Results of measurements, their plots, and scripts for one question each.

The measuring itself is `wgpu_q4.bench`: ``wgpu-q4 bench`` or ``python -m benchmarks``.
"""
