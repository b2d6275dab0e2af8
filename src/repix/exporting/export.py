"""All formats of a cell, each loaded back and held against the trained network."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from repix.config.export import Export
from repix.data.store import Prepared
from repix.errors import UserError
from repix.files import atomic_folder, digest_tree
from repix.models.scaling import to_unit
from repix.schemas import Exported
from repix.training.trained import TrainedModel


def export(model: TrainedModel, prepared: Prepared, settings: Export, out: Path) -> dict[str, float]:
    """Write every translator of a trained cell in every format, checked.

    Args:
        model: the trained cell.
        prepared: its data set, whose test images the comparison takes.
        settings: formats, weights and tolerance.
        out: ``exports/<cell>/``, with one folder per translator and ``export.json``.

    Returns:
        The measured largest error of each ``<translator>/<format>``. They differ between
        machines in their last digits, so they stay out of the record.

    Raises:
        UserError: a format does not follow the network within the tolerance.
    """
    from repix.exporting import keras_format, saved_model

    writers = {
        "keras": lambda network, folder, source, target: keras_format.write(network, folder),
        "saved_model": lambda network, folder, source, target: saved_model.write(
            network, folder, source, target, model.record.crop_size
        ),
    }
    loaders = {"keras": keras_format.load, "saved_model": saved_model.load}
    model.load(settings.variant)
    test = prepared.split("test")
    sizes: dict[str, dict[str, int]] = {}
    digests: dict[str, dict[str, str]] = {}
    errors: dict[str, float] = {}
    with atomic_folder(out) as folder:
        for translator, name in sorted(model.record.translators.items()):
            forward = translator == "source_to_target"
            source, target = (model.record.source, model.record.target)[:: 1 if forward else -1]
            images = np.asarray((test.source if forward else test.target)[: settings.images])
            unit = to_unit(images, source.low, source.high)
            network = model.system.networks[name]
            expected = np.asarray(keras.ops.convert_to_numpy(network(unit, training=False)))
            sizes[translator], digests[translator] = {}, {}
            for kind in settings.formats:
                path = writers[kind](network, folder / translator, source, target)
                found = loaders[kind](path)(unit)
                error = float(np.abs(found - expected).max())
                if not error <= settings.tolerance:
                    raise UserError(
                        f"export {kind} of {translator}: differs by {error:.3g} from the trained network, "
                        f"export.tolerance is {settings.tolerance:.3g}; the file was not kept"
                    )
                errors[f"{translator}/{kind}"] = error
                files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
                sizes[translator][kind] = sum(file.stat().st_size for file in files)
                digests[translator][kind] = digest_tree(path)
        record = Exported(
            cell=model.record.cell,
            variant=settings.variant,
            run_key=model.record.run_key,
            crop_size=model.record.crop_size,
            source=model.record.source,
            target=model.record.target,
            weights=(model.record.networks if settings.variant == "last" else model.record.best["networks"]),
            bytes=sizes,
            digests=digests,
            tolerance=settings.tolerance,
            parity="pass",
            direction=model.record.direction,
        )
        record.write(folder / "export.json")
    return errors
