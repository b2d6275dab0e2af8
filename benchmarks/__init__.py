"""Measurements of speed, each a command at the repository's root: ``python -m benchmarks.step``."""
