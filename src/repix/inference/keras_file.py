"""A network from a ``.keras`` file."""

from __future__ import annotations

from pathlib import Path

import keras

from repix.errors import UserError


def load_network(path: Path) -> keras.Model:
    """Return the network of a ``.keras`` file.

    Importing :mod:`repix.models.layers` is what teaches Keras the layers of repix.

    Raises:
        UserError: the file is not a model that this Keras reads.
    """
    import repix.models.layers  # noqa: F401

    try:
        return keras.saving.load_model(path, compile=False)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make its readers raise anything
        said = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise UserError(f"{path}: cannot be read ({said}); run `dvc checkout` or `dvc repro`") from None
