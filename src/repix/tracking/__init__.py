"""Beside the route: what happened. Nothing here can change an out.

Observers tell a terminal, MLflow and TensorBoard what a stage does, and any of these may be absent or broken. What a
result followed from, the same on every machine, is in :mod:`repix.provenance.lineage`.
"""
