"""Compare measured scores with the baseline: the gate gives each a verdict, and the reason for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from repix import profile
from repix.cells import Cell
from repix.errors import UserError
from repix.metrics import direction, find
from repix.regression.baseline import Baseline, Entry, differences
from repix.regression.tolerance import Family, Tolerances

# Verdict -> exit code of the gate if it is the gravest one.
EXIT_CODES = {"pass": 0, "improved": 0, "new": 0, "shown": 0, "fail": 1, "incomparable": 2, "contradiction": 3}
# Something that is surely worse outweighs something that cannot be judged; a contradiction
# outweighs both, since the measurement itself cannot be trusted then.
_GRAVITY = ("pass", "shown", "new", "improved", "incomparable", "fail", "contradiction")

_JUDGED = ("pass", "improved", "fail", "contradiction")  # a number stood against the baseline

# Where a profile does not promise equal bits on every machine, equal weights may score
# differently by rounding: relative difference that is still called equal.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Verdict:
    """The verdict on one score, or on a whole cell (translator, variant, metric empty).

    Attributes:
        verdict: ``pass``: within the tolerance. ``fail``: worse by more. ``improved``: better
            by more. ``incomparable``: measured otherwise, or with no known noise.
            ``contradiction``: equal weights, unequal score. ``new``: not in the baseline.
            ``shown``: not gated.
        old, new: the score in the baseline and now.
        tolerance: how much worse a score may be, since another seed alone can make it so.
        detectable: the smallest true change that is seen with the stated power.
        why: the reason, where the numbers do not say it.
    """

    cell: str
    translator: str
    variant: str
    metric: str
    verdict: str
    old: float | None = None
    new: float | None = None
    tolerance: float | None = None
    detectable: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Result:
    """All verdicts, and the overall one.

    Attributes:
        verdicts: of every score, or of a whole cell.
        cells: all cells of the baseline and of what was measured, sorted.
    """

    verdicts: tuple[Verdict, ...]
    cells: tuple[str, ...] = ()

    def judged(self) -> dict[str, int]:
        """Return cell -> how many of its scores were judged, of the cells where any was."""
        counted = Counter(v.cell for v in self.verdicts if v.verdict in _JUDGED)
        return {cell: counted[cell] for cell in self.cells if counted[cell]}

    def not_judged(self) -> dict[str, str]:
        """Return cell -> why none of its scores was judged, of the other cells."""
        reasons = {}
        for cell in self.cells:
            found = [v for v in self.verdicts if v.cell == cell]
            if not any(v.verdict in _JUDGED for v in found):
                whys = dict.fromkeys(v.why for v in found if v.why)
                shown = (
                    "none of its scores is gated" if found else "neither the baseline nor this run has a score of it"
                )
                reasons[cell] = "; ".join(whys) or shown
        return reasons

    @property
    def verdict(self) -> str:
        """The gravest verdict, among ``pass``, ``fail``, ``incomparable`` and ``contradiction``."""
        gravest = max((v.verdict for v in self.verdicts), key=_GRAVITY.index, default="incomparable")
        if EXIT_CODES[gravest]:
            return gravest
        return "pass" if self.judged() else "incomparable"  # a gate that looked at nothing holds nothing

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 incomparable, 3 contradiction."""
        return EXIT_CODES[self.verdict]


def judge(baseline: Baseline | None, now: Mapping[str, Entry], tolerances: Tolerances) -> Result:
    """Compare measured cells with the baseline.

    Args:
        baseline: what was accepted; None where nothing was.
        now: cell -> its scores.
        tolerances: the seed noise, by data set and model.
    """
    if baseline is None:
        why = "there is no baseline; `repix gate --accept` makes the first one"
        return Result(
            tuple(Verdict(cell, "", "", "", "incomparable", why=why) for cell in sorted(now)), tuple(sorted(now))
        )
    verdicts: list[Verdict] = []
    cells = tuple(sorted(baseline.cells.keys() | now.keys()))
    for cell in cells:
        if cell not in now:
            why = f"in the baseline, but there is no {cell}.json; run `dvc repro`, or --accept that it is gone"
            verdicts.append(Verdict(cell, "", "", "", "incomparable", why=why))
        elif cell not in baseline.cells:
            why = "not in the baseline; `repix gate --accept` takes it in"
            verdicts.append(Verdict(cell, "", "", "", "new", why=why))
        else:
            family = tolerances.families.get(Cell.named(cell).family)
            verdicts += _judge_cell(cell, baseline.cells[cell], now[cell], family)
    return Result(tuple(verdicts), cells)


def _judge_cell(cell: str, old: Entry, new: Entry, family: Family | None) -> Iterator[Verdict]:
    for translator in sorted(old.scores.keys() | new.scores.keys()):
        variants = old.scores.get(translator, {}), new.scores.get(translator, {})
        for variant in sorted(variants[0].keys() | variants[1].keys()):
            before, after = (side.get(variant) or {} for side in variants)
            # Of the best weights no digest is known: they may differ where the last ones are equal.
            weights = old.weights(variant.removesuffix("_paper"))
            same_weights = weights != {} and weights == new.weights(variant.removesuffix("_paper"))
            for metric in sorted(before.keys() | after.keys()):
                if before.get(metric) is not None or after.get(metric) is not None:
                    yield _judge_score(
                        Verdict(cell, translator, variant, metric, "pass", before.get(metric), after.get(metric)),
                        old,
                        new,
                        family,
                        same_weights,
                    )


def _judge_score(at: Verdict, old: Entry, new: Entry, family: Family | None, same_weights: bool) -> Verdict:
    """Return ``at`` with its verdict."""

    def say(verdict: str, why: str = "", tolerance: float | None = None, detectable: float | None = None) -> Verdict:
        return Verdict(
            at.cell, at.translator, at.variant, at.metric, verdict, at.old, at.new, tolerance, detectable, why
        )

    differs = unlike(old, new, at.translator, at.metric, defined=at.old is not None and at.new is not None)
    noise, gated = _noise(family, at)
    if not differs and at.old is not None and at.new is not None and same_weights and not _equal(at.old, at.new, new):
        return say("contradiction", "equal weights digest, unequal score: evaluation is not what the baseline ran")
    if not gated:
        return say("shown")
    if at.old is None:
        return say("new", "not in the baseline; `repix gate --accept` takes it in")
    if differs:
        return say("incomparable", _listed(differs))
    if at.new is None:
        return say("incomparable", f"no longer measured: {_why_not(new, at)}")
    if not math.isfinite(at.new):
        return say("fail", "not a finite number")
    if not math.isfinite(at.old):
        return say("incomparable", "the baseline's is not a finite number; restore it with git, or --accept this one")
    if noise is None:
        if at.old == at.new:
            return say("pass", "equal; its noise between seeds is not known")
        cell = Cell.named(at.cell)
        return say("incomparable", f"noise between seeds is not known: repix seeds {cell.dataset} {cell.model} --write")
    other = unlike(family, new, at.translator, at.metric)
    if other:
        return say("incomparable", f"the tolerance was measured otherwise: {_listed(other)}; repeat the seed study")
    better = (at.new - at.old) * direction(at.metric)
    verdict = "fail" if better < -noise.tolerance else "improved" if better > noise.tolerance else "pass"
    return say(verdict, "", noise.tolerance, noise.detectable)


def _why_not(entry: Entry, at: Verdict) -> str:
    """Return why a score has no number: the reason in the protocol, or the names it has on other features."""
    if reason := entry.protocol.get(at.metric, {}).get("reason"):
        return reason
    scores = entry.scores.get(at.translator, {}).get(at.variant) or {}
    others = [name for name, value in sorted(scores.items()) if value is not None and find(name) is find(at.metric)]
    return f"on other features now, {', '.join(others)}" if others else "no reason given"


def _noise(family: Family | None, at: Verdict):
    """Return the noise of a score, where it is known, and whether the score is gated."""
    if direction(at.metric) is None:
        return None, False
    if family is None:
        return None, True
    known = family.scores.get(at.translator, {}).get(at.variant, {})
    if at.metric in known:
        return known[at.metric], known[at.metric].tolerance is not None
    # Never studied: gated if its weights are, so that a metric that is switched on asks for a seed study.
    return None, not known or any(noise.tolerance is not None for noise in known.values())


def _equal(old: float, new: float, entry: Entry) -> bool:
    exact = True
    with suppress(UserError):  # a name of another version's
        exact = profile.find(str(entry.protocol.get("profile"))).portable
    return old == new if exact else math.isclose(old, new, rel_tol=ROUNDING)


def unlike(
    old: Entry | Family, new: Entry | Family, translator: str, metric: str, *, defined: bool = True
) -> list[str]:
    """Return the differences between the definitions of a score in two protocols, one line each.

    Args:
        old, new: what was scored.
        translator, metric: which score.
        defined: whether both have it. A metric that was not asked for has no definition: its null alone says that.
    """

    def definition(scored: Entry | Family) -> dict[str, Any]:
        tree = scored.protocol
        own = {key: value for key, value in tree.get(metric, {}).items() if key != "reason"} if defined else {}
        named = {"n": scored.n, "profile": tree.get("profile"), "split": tree.get("split"), metric: own}
        return named | {part: tree.get(part, {}).get(translator) for part in ("images", "reference")}

    return differences(definition(old), definition(new))


def _listed(lines: list[str]) -> str:
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more
