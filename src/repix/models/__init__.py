"""Networks: generators, discriminators, layers, losses and first weights, as functions that build Keras models.

Plain Keras 3 and NumPy only: no DVC, no MLflow, no backend by name.
"""
