"""The ``.keras`` file: architecture and weights, loaded by ``keras.saving.load_model``."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from repix.exporting.spec import ExportSpec
from repix.files import atomic_path
from repix.inference.keras_file import load_network

# Zip cannot say "no time"; this is the first moment that it can say.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(network: keras.Model, path: Path, spec: ExportSpec) -> None:
    """Write a network, byte for byte the same for the same weights; nothing of ``spec`` matters to it.

    Keras stamps the archive and its metadata with the time of saving, and marks shared
    objects by their address in memory; times are fixed here and addresses become numbers in
    the order of their appearance.
    """
    with atomic_path(path) as temporary:
        network.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        metadata = json.loads(members["metadata.json"]) | {"date_saved": "1980-01-01@00:00:00"}
        members["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
        config = json.loads(members["config.json"])
        _number_shared_objects(config, {})
        members["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def _number_shared_objects(node, numbers: dict[int, int]) -> None:
    """Replace memory addresses in a configuration by 0, 1, 2 ... as they appear, in place."""
    if isinstance(node, dict):
        if "shared_object_id" in node:
            node["shared_object_id"] = numbers.setdefault(node["shared_object_id"], len(numbers))
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            _number_shared_objects(child, numbers)


def load(path: Path):
    """Return the file's function on [-1, 1]: (batch, height, width, channels) both ways.

    Raises:
        UserError: the file is not a model that this Keras reads.
    """
    network = load_network(path)
    return lambda unit: np.asarray(keras.ops.convert_to_numpy(network(unit, training=False)))
