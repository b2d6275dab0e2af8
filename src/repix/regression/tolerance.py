"""Estimate tolerances from seed noise: how far apart two runs may lie that differ in their seed alone.

The gate compares one new run with one accepted run. If only the seed differs, both are samples
of one distribution with standard deviation s, estimated on k seeds, and their difference
over sqrt(2) s follows Student's t with k - 1 degrees of freedom (Student 1908; normality is
assumed, the leave-one-out count below checks it). A score is red where it is worse by more than

    tolerance = factor * sd,    factor = sqrt(2) * t(1 - false_alarm / m, k - 1)

with m the number of gated scores of the cell (Bonferroni 1936): whatever their correlation,
another seed alone turns the gate red with a chance of at most ``false_alarm``. A true change
is seen with the chance ``power`` from

    detectable = tolerance + sqrt(2) * t(power, k - 1) * sd

on. Resampling images instead of seeds gives intervals several times too narrow, since it
ignores that training itself is random.

Reading tolerances imports nothing heavy; estimating them imports scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from repix.cells import Cell, CellName
from repix.config.gate import Gate
from repix.errors import UserError
from repix.metrics import direction, find
from repix.regression.baseline import Entry, differences
from repix.schemas import Protocol, Record, Scores, flat

FILE = "tolerances.json"


class Noise(BaseModel):
    """One score's spread over seeds and what follows from it; all in the metric's own unit.

    ``mean``, ``sd`` (with k - 1), ``low``, ``high``, ``range`` over the seeds; ``tolerance`` and
    ``detectable`` as the module says, null where the score is shown but not gated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    mean: float
    sd: float = Field(ge=0)
    low: float
    high: float
    range: float = Field(ge=0)
    tolerance: float | None = Field(ge=0)
    detectable: float | None


class StudiedCell(BaseModel):
    """One cell that a seed study trained: where a tolerance came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cell: CellName
    seed: int
    weights_digest: dict[str, str]
    scores: Scores


class SeedChange(BaseModel):
    """How often the gate passes the study's own cells, each taken for the new run in turn.

    ``pairs`` are all ordered pairs (accepted run, new run); ``green`` those that pass with the
    tolerance from every seed but the new one; ``green_new_seeds`` counts, for the first seed as
    the accepted run, the other seeds that pass.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    pairs: int
    green: int
    new_seeds: int
    green_new_seeds: int


class Family(BaseModel):
    """The seed noise of one data set and model.

    Attributes:
        n: test images.
        profile: name of the execution profile.
        k: seeds.
        false_alarm, power, comparisons, t, factor: how ``tolerance`` follows from ``sd``.
        scores: translator -> weights -> metric -> noise; null metrics are left out.
        params: the parameters that the cells read.
        run_key: digest of code, parameters, data, packages and profile, without the seed.
        protocol: what the scores are comparable under.
        provenance: the cells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    n: int
    profile: str | None
    k: int
    false_alarm: float
    power: float
    comparisons: int
    t: float
    factor: float
    scores: dict[str, dict[str, dict[str, Noise]]]
    seed_change: SeedChange | None
    params: dict[str, Any]
    run_key: str
    protocol: Protocol
    provenance: tuple[StudiedCell, ...]

    @model_validator(mode="after")
    def _follows(self) -> Family:
        """Refuse tolerances that do not follow from the seeds beside them: a file that somebody has edited."""
        studied = values_of(list(self.cells().values()))
        gated = 0
        for key, noise in flat(self.scores).items():
            sd = mean_and_sd(studied[key])[1] if len(studied.get(key, ())) > 1 else math.nan
            gated += noise.tolerance is not None
            if not _close(noise.sd, sd):
                raise ValueError(f"sd of {' '.join(key)} is {noise.sd:g}, its seeds have {sd:g}")
            if noise.tolerance is not None and not _close(noise.tolerance, self.factor * noise.sd):
                raise ValueError(f"tolerance of {' '.join(key)} is {noise.tolerance:g}, not factor * sd")
        is_counted = self.k == len(self.provenance) and self.comparisons == gated
        t = t_quantile(1 - self.false_alarm / max(1, self.comparisons), self.k - 1)
        if not (is_counted and _close(self.factor, math.sqrt(2) * self.t) and _close(self.t, t)):
            raise ValueError("k, false_alarm, comparisons, t and factor are not those of its cells and scores")
        return self

    def cells(self) -> dict[str, Entry]:
        """Return cell -> its scores, for the cells that the noise was measured on."""
        return {
            one.cell: Entry(weights_digest=one.weights_digest, n=self.n, scores=one.scores, protocol=self.protocol)
            for one in self.provenance
        }


class Tolerances(Record):
    """``metrics/tolerances.json``: ``<dataset>-<model>`` -> its noise."""

    SCHEMA: ClassVar[str] = "repix.tolerances/1"
    MADE_BY: ClassVar[str] = "`repix seeds DATASET MODEL --write`, once it is removed,"
    IN_GIT: ClassVar[bool] = True
    families: dict[str, Family]


def read_tolerances(path: str | Path) -> Tolerances:
    """Return the tolerances; none at all where the file does not exist.

    Raises:
        UserError: the file is there and cannot be read.
    """
    return Tolerances.read(path) if Path(path).exists() else Tolerances(families={})


def t_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(degrees, probability))


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation with n - 1 of two values or more."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def error_of_means(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return the standard error of the difference of two means, and its degrees of freedom after Welch."""
    (_, sd), (_, other_sd) = mean_and_sd(values), mean_and_sd(others)
    one, two = sd**2 / len(values), other_sd**2 / len(others)  # of the means
    return math.sqrt(one + two), (one + two) ** 2 / (one**2 / (len(values) - 1) + two**2 / (len(others) - 1))


def p_of(t: float, degrees: float) -> float:
    """Return the probability of a t so far from 0, on either side."""
    from scipy.special import stdtr

    return 2 * float(stdtr(degrees, -abs(t)))


def welch(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the p of Welch's test of two means: 1 where all values are equal, 0 where only the means differ."""
    if len({*values}) == len({*others}) == 1:  # no noise to test against
        return float(values[0] == others[0])
    error, degrees = error_of_means(values, others)
    return p_of((mean_and_sd(values)[0] - mean_and_sd(others)[0]) / error, degrees)


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)


def is_worse(metric: str, old: float, new: float, tolerance: float) -> bool:
    """Whether ``new`` is worse than ``old`` by more than ``tolerance``."""
    return (old - new) * direction(metric) > tolerance


def is_gated(variant: str, metric: str, settings: Gate) -> bool:
    """Whether a score of these weights and this metric can turn the gate red."""
    known = find(metric)
    return known is not None and variant in settings.variants and known.name in settings.metrics


def values_of(entries: Sequence[Entry]) -> dict[tuple[str, str, str], list[float]]:
    """Return (translator, variant, metric) -> its value in each entry, where every entry has one."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for entry in entries:
        for key, value in flat(entry.scores).items():
            if value is not None:
                values.setdefault(key, []).append(value)
    return {key: found for key, found in sorted(values.items()) if len(found) == len(entries)}


def estimate(cells: Mapping[str, Entry], settings: Gate, *, params: Mapping[str, Any], run_key: str) -> Family:
    """Return the seed noise of cells that differ in their seed alone.

    Args:
        cells: cell -> its scores; the seed is the last part of the name.
        settings: which scores are gated, and how often noise may turn them red.
        params: the parameters that the cells were made with.
        run_key: digest of everything that the cells share.

    Raises:
        UserError: fewer than two cells, or cells that cannot be compared with each other.
    """
    names = sorted(cells, key=lambda cell: Cell.named(cell).seed)
    if len(names) < 2:
        raise UserError("noise between seeds takes two seeds or more; give `--seeds 0-9`")
    entries = [cells[name] for name in names]
    first = entries[0]
    for name, entry in zip(names, entries, strict=True):
        other = differences({"n": first.n, **first.protocol}, {"n": entry.n, **entry.protocol})
        if other:
            raise UserError(f"{names[0]} and {name} cannot be compared: {other[0]}; evaluate both the same way")
    values = values_of(entries)
    gated = [key for key in values if is_gated(key[1], key[2], settings)]
    if not gated:
        raise UserError("none of the scores is gated; see gate.metrics and gate.variants in params.yaml")
    level, k = 1 - settings.false_alarm / len(gated), len(names)
    t, reach = t_quantile(level, k - 1), t_quantile(settings.power, k - 1)
    scores: dict[str, dict[str, dict[str, Noise]]] = {}
    for (translator, variant, metric), found in values.items():
        mean, sd = mean_and_sd(found)
        is_one = (translator, variant, metric) in gated
        scores.setdefault(translator, {}).setdefault(variant, {})[metric] = Noise(
            mean=mean,
            sd=sd,
            low=min(found),
            high=max(found),
            range=max(found) - min(found),
            tolerance=math.sqrt(2) * t * sd if is_one else None,
            detectable=math.sqrt(2) * (t + reach) * sd if is_one else None,
        )
    return Family(
        n=first.n,
        profile=first.protocol.get("profile"),
        k=k,
        false_alarm=settings.false_alarm,
        power=settings.power,
        comparisons=len(gated),
        t=t,
        factor=math.sqrt(2) * t,
        scores=scores,
        seed_change=_seed_change({key: values[key] for key in gated}, level, k),
        params=dict(params),
        run_key=run_key,
        protocol=first.protocol,
        provenance=tuple(
            StudiedCell(
                cell=name,
                seed=Cell.named(name).seed,
                weights_digest=cells[name].weights_digest,
                scores=cells[name].scores,
            )
            for name in names
        ),
    )


def _seed_change(values: Mapping[tuple[str, str, str], Sequence[float]], level: float, k: int) -> SeedChange | None:
    """Count the pairs of seeds that the gate passes with the tolerance estimated without the new seed."""
    if k < 3:  # without the new one a single seed would be left
        return None
    factor = math.sqrt(2) * t_quantile(level, k - 2)
    green = set()
    for new in range(k):
        tolerances = {
            key: factor * mean_and_sd([value for i, value in enumerate(found) if i != new])[1]
            for key, found in values.items()
        }
        for old in range(k):
            if old != new and not any(
                is_worse(key[2], found[old], found[new], tolerances[key]) for key, found in values.items()
            ):
                green.add((old, new))
    return SeedChange(
        pairs=k * (k - 1),
        green=len(green),
        new_seeds=k - 1,
        green_new_seeds=sum(old == 0 for old, _ in green),
    )
