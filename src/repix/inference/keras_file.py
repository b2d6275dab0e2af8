"""A network from a ``.keras`` file."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import keras
import numpy as np

from repix.errors import UserError, limit_of_the_machine, words_of


def load_network(path: Path, mend: str = "run `dvc checkout` or `dvc repro`") -> keras.Model:
    """Return the network of a ``.keras`` file.

    Importing :mod:`repix.models.layers` is what teaches Keras the layers of repix.

    Args:
        path: the file.
        mend: what a user does about a file that cannot be read.

    Raises:
        UserError: the file is not a model that this Keras reads.
    """
    import repix.models.layers  # noqa: F401

    if not (path.is_file() and zipfile.is_zipfile(path)):  # Keras would say that it is not there
        raise UserError(f"{path}: cannot be read (it is no .keras file, or was cut short); {mend}")
    try:
        network = keras.saving.load_model(path, compile=False)
    except Exception as error:  # a damaged file can make its readers raise anything
        if limit_of_the_machine(error):
            raise
        said = re.split(r"\.\s", words_of(error))[0][:200]  # its first sentence
        raise UserError(f"{path}: cannot be read ({said}); {mend}") from None
    for variable in network.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise UserError(f"{path}: {variable.path!a} holds NaN or infinite numbers; {mend}")
    return network
