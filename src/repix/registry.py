"""What can be chosen by name, and the module behind each name: adding one is a line here and a file there.

A stage depends on the modules that its parameters choose, not on this page (see
:mod:`repix.provenance.code`): a new line re-runs nothing that does not choose it.
"""

SYSTEMS = {
    "pix2pix": "repix.systems.pix2pix",
    "cyclegan": "repix.systems.cyclegan",
}

FORMATS = {
    "keras": "repix.exporting.keras_format",
    "saved_model": "repix.exporting.saved_model",
    "onnx": "repix.exporting.onnx_format",
    "litert": "repix.exporting.litert_format",
}

# Keras backend -> what runs a network on it, and what trains one on it.
INFERENCE = {
    "tensorflow": "repix.inference.tensorflow_backend",
    "jax": "repix.inference.jax_backend",
}
STEPS = {
    "tensorflow": "repix.training.step_tensorflow",
    "jax": "repix.training.step_jax",
}
