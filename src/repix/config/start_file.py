"""What a training may start from beside a cell: a file of weights, or a folder of exports."""

from __future__ import annotations

from pathlib import Path

from repix.errors import UserError
from repix.paths import EXPORTS

KERAS = "model.keras"


def files_of(file: str, source: Path, key: str) -> dict[str, Path]:
    """Return name -> file, of what a ``start_from.file`` leads to.

    Args:
        file: as params.yaml names it.
        source: where that is.
        key: the ``start_from`` of a model, for the message.

    Raises:
        UserError: it is neither a file of weights nor a folder of exports.
    """
    if source.is_dir():
        files = {path.relative_to(source).as_posix(): path for path in sorted(source.glob(f"*/{KERAS}"))}
        if not files:
            raise UserError(f"{key}.file: {file} has no <translator>/{KERAS}; it is no folder of exports")
        return files
    if not source.is_file():
        raise UserError(f"{key}.file: {file}: is no file")
    if source.suffix not in (".keras", ".npz"):
        raise UserError(f"{key}.file: {file} is neither .keras, .npz nor a folder such as {EXPORTS}/<cell>")
    return {source.name: source}
