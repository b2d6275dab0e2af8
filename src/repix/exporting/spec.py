"""What every export format is told, beside the network: one signature for all of them.

A format is a module with two functions, and one line of :data:`repix.registry.FORMATS`:

- ``write(network, path, spec)`` writes a generator to ``path``, a file or a folder that does
  not exist; equal weights give equal bytes. ``spec`` is an :class:`ExportSpec`.
- ``load(path)`` returns the written file's function, run in the runtime that its users have:
  float32 arrays (batch, height, width, channels) in [-1, 1], both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

from repix.config.export import Export
from repix.schemas import Side


@dataclass(frozen=True)
class ExportSpec:
    """What a translator takes and gives.

    Attributes:
        source, target: what the stored integers of both sides mean.
        size: (height, width) in pixels.
        settings: ``export`` of params.yaml.
    """

    source: Side
    target: Side
    size: tuple[int, int]
    settings: Export
