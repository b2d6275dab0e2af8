"""Networks as pure builders, and the systems: who plays, and what each one minimises.

Plain Keras 3 and NumPy only: no DVC, no MLflow, no backend by name.
"""
