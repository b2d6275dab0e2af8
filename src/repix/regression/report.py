"""Format the result of the gate: text for a terminal, markdown for a pull request, or JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from repix import pages
from repix.metrics import direction
from repix.regression.gate import Result, Verdict
from repix.tables import aligned

_HEAD = ("cell", "translator", "weights", "metric", "baseline", "now", "change", "tolerance", "verdict")
_NUMBERS = (4, 5, 6, 7)  # columns
_WORST_FIRST = ("contradiction", "fail", "incomparable", "improved", "new", "pass", "shown")
_QUIET = ("pass", "shown")
_SENTENCES = {
    "pass": "nothing got worse by more than another seed may",
    "fail": "worse by more than another seed may",
    "incomparable": "what was measured cannot be compared with the baseline",
    "contradiction": "equal weights gave unequal scores",
}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _change(verdict: Verdict) -> str:
    """Return new - old with the word for it; empty where one is missing or the numbers cannot be compared."""
    if verdict.old is None or verdict.new is None or verdict.verdict == "incomparable":
        return ""
    step = verdict.new - verdict.old
    if step == 0:
        return "equal"
    sign = direction(verdict.metric)
    word = "" if sign is None else " better" if step * sign > 0 else " worse"
    return f"{step:+.4f}{word}"


def _cells(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.cell,
        verdict.translator,
        verdict.variant,
        verdict.metric,
        _number(verdict.old),
        _number(verdict.new),
        _change(verdict),
        _number(verdict.tolerance),
        verdict.verdict,
    )


def _sorted(result: Result) -> list[Verdict]:
    return sorted(result.verdicts, key=lambda v: (_WORST_FIRST.index(v.verdict), v.cell, v.translator, v.variant))


def _summary(result: Result) -> str:
    counted = Counter(v.verdict for v in result.verdicts)
    listed = ", ".join(f"{counted[name]} {name}" for name in _WORST_FIRST if counted[name])
    return f"{_SENTENCES[result.verdict]} ({listed or 'no cells'})"


def _where(verdict: Verdict) -> str:
    return " ".join(part for part in (verdict.cell, verdict.translator, verdict.variant, verdict.metric) if part)


def _reasons(result: Result) -> dict[str, list[str]]:
    """Return reason -> the places that it is given for, worst first."""
    reasons: dict[str, list[str]] = {}
    for verdict in _sorted(result):
        if verdict.why:
            reasons.setdefault(verdict.why, []).append(_where(verdict))
    return reasons


def _cells_looked_at(result: Result) -> list[str]:
    """Return a line on the cells that were judged, and one for each reason why others were not."""
    of = Counter(v.cell for v in result.verdicts)
    judged = ", ".join(f"{cell} ({count} of {of[cell]} scores)" for cell, count in result.judged().items())
    lines = [f"judged: {judged or 'no cell'}"]
    reasons: dict[str, list[str]] = {}
    for cell, why in result.not_judged().items():
        reasons.setdefault(why, []).append(cell)
    return lines + [f"not judged: {', '.join(cells)}: {why}" for why, cells in reasons.items()]


def text(result: Result) -> str:
    """Return the result as text: a table, the worst first, the reasons, the cells judged and not, the verdict."""
    rows = [_HEAD, *map(_cells, _sorted(result))]
    lines = aligned(rows, right=_NUMBERS)
    for why, places in _reasons(result).items():
        lines.append(f"{places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}: {why}")
    lines += _cells_looked_at(result)
    lines.append(f"gate: {result.verdict}: {_summary(result)}")
    return "\n".join(lines)


def markdown(result: Result) -> str:
    """Return a pull-request comment: the verdict, what matters as a table, the rest folded."""
    ordered, summary = _sorted(result), _summary(result)
    return pages.render(
        __file__,
        "md",
        verdict=result.verdict,
        summary=f"{summary[0].upper()}{summary[1:]}",
        loud=[_HEAD, *(_cells(v) for v in ordered if v.verdict not in _QUIET)],
        quiet=[_HEAD, *(_cells(v) for v in ordered if v.verdict in _QUIET)],
        right=_NUMBERS,
        reasons=_reasons(result),
        cells=_cells_looked_at(result),
    ).rstrip("\n")


def as_json(result: Result) -> dict[str, Any]:
    """Return the result as plain data: verdict, exit code, and every score's verdict."""
    return {
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "summary": _summary(result),
        "judged": result.judged(),
        "not_judged": result.not_judged(),
        "scores": [asdict(verdict) for verdict in _sorted(result)],
    }
