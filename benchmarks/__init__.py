"""Measurements: ``python -m benchmarks`` (see ``--help``).  Timings never gate a test."""
