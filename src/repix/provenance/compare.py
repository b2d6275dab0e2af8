"""At which level two results are the same, file by file.

L0  the same bytes
L1  the same content: arrays with the same canonical digest, the same pixels, the same
    numbers; only the container is another
L2  the same within a bound: arrays of floats, and numbers in JSON and CSV, within
    :data:`BOUND` (absolute up to 1, relative above), pixels within one level
L3  another result, whose test scores lie within the noise measured between seeds
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from repix.errors import limit_of_the_machine
from repix.files import digest_arrays
from repix.schemas import Metrics, flat

BOUND = 1e-3
"""Largest difference of L2. Networks compute in float32 and take thousands of steps; a bound
is only as good as the shortest training that passes it, so it is no promise for long ones."""

_HASH = re.compile(r"[0-9a-f]{64}")


class Level(IntEnum):
    """How much two results have in common; less is better."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    DIFFERENT = 4


class Verdict(NamedTuple):
    """The level, and which file and what in it set the level (empty for L0)."""

    level: Level
    why: str = ""


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= BOUND * max(1.0, abs(one), abs(other))


def _arrays(one: Mapping[str, Any], other: Mapping[str, Any], bound: float | None = None) -> Verdict:
    """Compare named arrays; for integers ``bound`` levels count as close."""
    import numpy as np

    if digest_arrays(one) == digest_arrays(other):
        return Verdict(Level.L1)
    worst = (0.0, "")
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            return Verdict(Level.DIFFERENT, f"only one has {name}")
        a, b = one[name], other[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return Verdict(Level.DIFFERENT, f"{name}: {a.dtype}{a.shape} and {b.dtype}{b.shape}")
        if a.size:
            largest = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
            worst = max(worst, (math.inf if math.isnan(largest) else largest, name))
    allowed = BOUND if bound is None else bound
    level = Level.L2 if worst[0] <= allowed else Level.DIFFERENT
    return Verdict(level, f"{worst[1]} differs by up to {worst[0]:.3g} (bound {allowed:g})".strip())


def _trees(one: Any, other: Any, where: str = "") -> Verdict:
    """Compare what JSON holds. Digests tell of bytes compared elsewhere: from L2 on they may differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return Verdict(Level.DIFFERENT, f"{where}: only one has {min(map(str, one.keys() ^ other.keys()))}")
        below = (_trees(one[key], other[key], f"{where}.{key}".lstrip(".")) for key in sorted(one))
        return max(below, key=lambda verdict: verdict.level, default=Verdict(Level.L1))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        below = (_trees(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True)))
        return max(below, key=lambda verdict: verdict.level, default=Verdict(Level.L1))
    if type(one) is type(other) and one == other:
        return Verdict(Level.L1)
    if isinstance(one, str) and isinstance(other, str) and _HASH.fullmatch(one) and _HASH.fullmatch(other):
        return Verdict(Level.L2, where)
    floats = isinstance(one, float) and isinstance(other, float)  # whole numbers count something: they are equal or not
    level = Level.L2 if floats and _close(one, other) else Level.DIFFERENT
    return Verdict(level, f"{where}: {one!r} and {other!r}")


def _table(content: bytes) -> list[list[Any]]:
    """Return the cells of a CSV, numbers as numbers."""

    def cell(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    return [[cell(text) for text in row] for row in csv.reader(io.StringIO(content.decode()))]


def file_verdict(name: str, one: Path, other: Path) -> Verdict | None:
    """Compare two files, whose kind the end of ``name`` tells; ``why`` is without the name.

    Returns:
        None where the bytes differ and the kind is one that is only compared by bytes.
    """
    a, b = one.read_bytes(), other.read_bytes()
    if a == b:
        return Verdict(Level.L0)
    kind = Path(name).suffix
    try:
        if kind in (".npz", ".npy"):
            import numpy as np

            loaded = [np.load(io.BytesIO(content), allow_pickle=False) for content in (a, b)]
            return _arrays(*({"array": f} if kind == ".npy" else {n: f[n] for n in f.files} for f in loaded))
        if kind == ".png":
            from repix.data.images import decode

            return _arrays(*({"pixels": decode(path).pixels} for path in (one, other)), bound=1)
        if kind == ".json":
            return _trees(json.loads(a), json.loads(b))
        if kind == ".csv":
            return _trees(_table(a), _table(b))
    except Exception as error:  # a damaged file is a result of the comparison
        if limit_of_the_machine(error):
            raise
        return Verdict(Level.DIFFERENT, f"cannot be read: {' '.join(str(error).split())[:80]}")
    return None


def out_verdict(out: str, rebuilt: Mapping[str, Path], reference: Mapping[str, Path]) -> Verdict:
    """Compare the files of an out.

    Files of other kinds than arrays, pictures, JSON and CSV are compared by bytes; in an
    export, where parity with the network is part of making it, ``export.json`` speaks for them.

    Args:
        out: its path; an out that is one file has it under the empty name.
        rebuilt, reference: name below the out -> file.
    """
    worst = Verdict(Level.L0)
    for name in sorted(rebuilt.keys() | reference.keys()):
        shown = f"{out}/{name}".rstrip("/")
        if name not in reference or name not in rebuilt:
            side = "rebuilt" if name in rebuilt else "recorded"
            return Verdict(Level.DIFFERENT, f"{shown}: only {side}")
        found = file_verdict(name or out, rebuilt[name], reference[name])
        if found is None:
            found = Verdict(Level.L1 if "export.json" in rebuilt else Level.DIFFERENT, "other bytes")
        if found.level > worst.level:
            worst = Verdict(found.level, f"{shown}: {found.why}".rstrip(": "))
    return worst


def noise_verdict(rebuilt: Metrics, reference: Metrics, noise: Mapping[str, float]) -> Verdict:
    """Compare the scores of a cell under the noise between seeds.

    Args:
        rebuilt, reference: the records.
        noise: ``<translator>/<variant>/<metric>`` -> largest difference that is noise; a
            score without one must be equal.
    """
    sides = [{"/".join(key): value for key, value in flat(record.scores).items()} for record in (rebuilt, reference)]
    for key in sorted(sides[0].keys() | sides[1].keys()):
        a, b = sides[0].get(key), sides[1].get(key)
        if a == b:
            continue
        if a is None or b is None or not math.isfinite(a - b) or abs(a - b) > noise.get(key, 0.0):
            allowed = f"noise between seeds {noise[key]:.3g}" if key in noise else "no noise measured"
            return Verdict(Level.DIFFERENT, f"{key}: {b} -> {a} ({allowed})")
    return Verdict(Level.L3, "test scores lie within the noise between seeds")
