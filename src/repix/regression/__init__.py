"""Decide whether a result got worse: baseline, tolerances from seed noise, the gate and its report.

The gate itself needs nothing but JSON files from git, the standard library and pydantic.
"""
