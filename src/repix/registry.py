"""What can be chosen by name, and the module behind each name: adding one is a line here and a file there.

A stage depends on the modules that its parameters choose, not on this page (see
:mod:`repix.provenance.code`): a new line re-runs nothing that does not choose it.
"""

from typing import NamedTuple


class GanSystem(NamedTuple):
    """A GAN system that a recipe can name.

    Attributes:
        module: has ``build(recipe, size, source, target)``; see :mod:`repix.systems.system`.
        needs_pairs: whether it learns from pairs of source and target.
    """

    module: str
    needs_pairs: bool


SYSTEMS = {
    "pix2pix": GanSystem("repix.systems.pix2pix", needs_pairs=True),
    "cyclegan": GanSystem("repix.systems.cyclegan", needs_pairs=False),
}


class Format(NamedTuple):
    """A file that an exported translator can be.

    Attributes:
        module: has ``write(network, path, spec)`` and ``load(path)``; see :mod:`repix.exporting.spec`.
        file: name of the file, or of the folder, that it writes.
        max_error, mean_error: how far it may be from the trained network on [-1, 1], where
            ``export.tolerance`` says nothing.
    """

    module: str
    file: str
    max_error: float
    mean_error: float


FORMATS = {
    # The same kernels in the same order: what is left is the compiler's freedom to fuse.
    "keras": Format("repix.exporting.keras_format", "model.keras", 1e-5, 1e-6),
    "saved_model": Format("repix.exporting.saved_model", "saved_model", 1e-5, 1e-6),
    # Other kernels sum in another order; measured 4e-6 at most for U-Nets of up to 54 M parameters.
    "onnx": Format("repix.exporting.onnx_format", "model.onnx", 5e-5, 5e-6),
    "litert": Format("repix.exporting.litert_format", "model.tflite", 5e-5, 5e-6),
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

# Where a training starts -> what puts it there. First weights need nothing more.
STARTS = {
    "parent": "repix.training.start",
}
