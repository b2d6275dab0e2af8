"""Beside the route: who did what with what. Nothing here can change an out.

``lineage`` says what a result followed from and is the same on every machine; the
observers, MLflow and TensorBoard show what happened, and may be absent or broken.
"""
