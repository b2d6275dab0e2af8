"""Put cells side by side: scores with the noise between seeds, parameters, and pictures on one page.

A cell is named by itself (of the workspace), as REV:CELL, or as REV alone where its grid is one cell. REV is
a git revision, a DVC experiment (`dvc exp list`), or workspace. One name, of elsewhere, is compared with the workspace.
Differences are to the first one. A difference is called noise where another seed alone may make it, by the
tolerances of `repix seeds` (metrics/tolerances.json): the rule of `repix gate`, in both directions.
The page needs no network and no other file. It shows the test images on which the cells differ most.

DATASET-MODEL, without a seed, stands for all its seeds that have scores: then means over them are compared, with
the noise of both sides and the p of Welch's test, by which a difference is called noise. That takes no study before,
and both under one profile.

Examples:
  repix compare HEAD
  repix compare sample-pix2pix_small-0 wooly-tope
  repix compare main main~1:sample-pix2pix_small-0 --images 20 -o compared.html
  repix compare sample-pix2pix_small sample-other
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from repix import pages
from repix.commands import here, new_file, there
from repix.errors import UserError, printable
from repix.files import canonical_json, write_text
from repix.metrics import direction
from repix.paths import METRICS, TRANSLATIONS, WORK
from repix.provenance import lock, revisions
from repix.provenance.revisions import Held
from repix.regression import baseline, families, gate, tolerance
from repix.tables import aligned

FOREIGN = "of another data set than A: no difference of theirs is judged"
ORDER = ("ssim", "l1")  # by the first of these that all cells have, pictures stand in order
WORDS = {"pass": "noise", "fail": "worse", "improved": "better", "shown": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="a cell, REV:CELL, REV, or all seeds of DATASET-MODEL")
    parser.add_argument("--images", type=int, default=12, metavar="N", help="pictures on the page; default: 12")
    parser.add_argument("-o", "--output", type=here, metavar="FILE", help="the page; default: in .repix/compare/")
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True)
class Score:
    """One score of the first cell and of another one.

    Attributes:
        translator, weights, metric: which score.
        values: of every cell; None where it has none.
        noise: standard deviation over seeds, of the first cell's data set and model; None if unknown.
        words: for every cell but the first: ``noise``, ``better``, ``worse``, ``equal``, ``unknown``, or empty.
        why: for every cell but the first: why there is no word.
    """

    translator: str
    weights: str
    metric: str
    values: tuple[float | None, ...]
    noise: float | None
    words: tuple[str, ...]
    why: tuple[str, ...]

    def step(self, number: int) -> float | None:
        """Return how far a cell is from the first one."""
        first, other = self.values[0], self.values[number]
        return None if first is None or other is None else other - first


def scores_of(found: Sequence[Held], limits: tolerance.Tolerances) -> list[Score]:
    """Return all scores that any of the cells has, judged as the gate judges them."""
    first, *others = found
    name = first.cell.name
    accepted = baseline.Baseline(cells={name: baseline.Entry.of(first.metrics)})
    judged = [
        {
            (v.translator, v.variant, v.metric): v
            for v in gate.judge(accepted, {name: baseline.Entry.of(other.metrics)}, limits).verdicts
        }
        for other in others
    ]
    foreign = [other.cell.dataset != first.cell.dataset for other in others]
    family = limits.families.get(first.cell.family)
    table = []
    for key in sorted(set().union(*judged)):
        translator, variant, metric = key
        verdicts = [each.get(key) for each in judged]
        known = family.scores.get(translator, {}).get(variant, {}).get(metric) if family else None
        values = tuple(_value(each, key) for each in found)
        table.append(
            Score(
                *key,
                values=values,
                noise=known.sd if known else None,
                words=tuple(
                    "" if other else _word(v, values[0], value, known is not None)
                    for v, value, other in zip(verdicts, values[1:], foreign, strict=True)
                ),
                why=tuple(FOREIGN if other else v.why if v else "" for v, other in zip(verdicts, foreign, strict=True)),
            )
        )
    return table


def _value(held: Held, key: tuple[str, str, str]) -> float | None:
    translator, variant, metric = key
    return (held.metrics.scores.get(translator, {}).get(variant) or {}).get(metric)


def _word(verdict: gate.Verdict | None, first: float | None, other: float | None, known: bool) -> str:
    if verdict is None or first is None or other is None:
        return ""
    if verdict.verdict == "contradiction":
        return "equal weights!"
    if first == other and (not verdict.why or verdict.verdict == "pass"):
        return "equal"
    if not known and verdict.verdict in ("pass", "shown") and direction(verdict.metric) is not None:
        return "unknown"
    return WORDS.get(verdict.verdict, "")


def differing(found: Sequence[Held]) -> list[tuple[str, ...]]:
    """Return key and the value of every cell, for each parameter in which not all are equal.

    Of cells of several data sets or models the groups are called ``dataset`` and ``model``, so that like stands
    beside like.
    """
    sides = []
    for held in found:
        side = {"seed": held.cell.seed}
        for group, name, names in (
            ("datasets", held.cell.dataset, {each.cell.dataset for each in found}),
            ("models", held.cell.model, {each.cell.model for each in found}),
        ):
            prefix = f"{group}.{name}."
            shown = prefix if len(names) == 1 else f"{group[:-1]}."
            side |= {shown + key.removeprefix(prefix): v for key, v in held.params.items() if key.startswith(prefix)}
            if len(names) > 1:
                side[group[:-1]] = name
        side |= {key: v for key, v in held.params.items() if not key.startswith(("datasets.", "models."))}
        sides.append(side)
    keys = sorted(set().union(*sides))
    return [
        (key, *(lock.shown(side.get(key)) for side in sides))
        for key in keys
        if any(side.get(key) != sides[0].get(key) for side in sides)
    ]


def others(found: Sequence[Held]) -> list[str]:
    """Return a line for each other thing than parameters that the cells do not share."""
    lines = []
    same_model = len({held.cell.model for held in found}) == 1
    for stage in ("train", "evaluate") if same_model else ():
        if len({held.code[stage] for held in found}) > 1:
            lines.append(f"code of {stage}: not the same in all")
    if len({held.cell.dataset for held in found}) == 1 and len({held.data for held in found}) > 1:
        lines.append("prepared data: not the same in all")
    return lines


def same_weights(found: Sequence[Held]) -> list[str]:
    """Return a line where all cells have the same weights."""
    digests = {canonical_json(held.metrics.weights_digest) for held in found}
    return ["weights: the same in all"] if len(digests) == 1 else []


@dataclass(frozen=True)
class Picture:
    """One test image: ``columns`` are (title, address of its data or empty, score or empty)."""

    name: str
    columns: tuple[tuple[str, str, str], ...]


def pictures_of(
    found: Sequence[Held], letters: Sequence[str], count: int
) -> tuple[dict[str, list[Picture]], list[str]]:
    """Return translator -> pictures side by side, where the cells differ most first, and why some are not there.

    Without scores of single images (unpaired data) they come in the order of the split.
    """
    notes, shown = [], {}
    folders = [held.files(f"{TRANSLATIONS.as_posix()}/{held.cell.name}") for held in found]
    for folder, letter in zip(folders, letters, strict=True):
        if folder is None:
            notes.append(f"{letter}: its pictures are not on this machine; `dvc pull`, or apply the experiment")
    for translator in sorted(set().union(*(held.metrics.scores for held in found))):
        whose = found[0].metrics.protocol.get("reference", {}).get(translator)
        columns, tables = [], []
        for held, folder, letter in zip(found, folders, letters, strict=True):
            if folder is None or f"{translator}.csv" not in folder:
                continue
            if held.metrics.protocol.get("reference", {}).get(translator) != whose:
                notes.append(f"{letter}: {translator} was scored on other test images; not shown beside the first")
                continue
            columns.append((letter, folder))
            tables.append(_table(folder[f"{translator}.csv"]))
        if not columns:
            continue
        metric = next((name for name in ORDER if all(name in next(iter(t.values()), {}) for t in tables)), None)
        names = [name for name in tables[0] if all(name in table for table in tables)]
        if metric:
            names.sort(key=lambda name, metric=metric: -_spread([table[name][metric] for table in tables]))
        shown[translator] = [_picture(name, translator, columns, tables, metric) for name in names[:count]]
    return shown, notes


def _table(path: Path) -> dict[str, dict[str, float]]:
    """Return image -> its scores of :data:`ORDER`, of the table of single images.

    Raises:
        UserError: the file is damaged.
    """
    try:
        read = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        return {row["image"]: {metric: float(row[metric]) for metric in ORDER if metric in row} for row in read}
    except (ValueError, TypeError, KeyError, csv.Error):
        raise UserError(f"{path}: is no table of single images; run `dvc checkout` or `dvc repro`") from None


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _picture(
    name: str,
    translator: str,
    columns: Sequence[tuple[str, Mapping[str, Path]]],
    tables: Sequence[Mapping[str, Mapping[str, float]]],
    metric: str | None,
) -> Picture:
    first = columns[0][1]
    halves = ("source", "target") if translator == "source_to_target" else ("target", "source")
    made = [("source", _data(first.get(f"gallery/{halves[0]}/{name}.png")), "")]
    for (letter, folder), table in zip(columns, tables, strict=True):
        small = folder.get(f"gallery/{translator}/{name}.png") or folder.get(f"{translator}/{name}.png")
        made.append((letter, _data(small), f"{metric} {table[name][metric]:.4f}" if metric else ""))
    if metric:
        made.append(("target", _data(first.get(f"gallery/{halves[1]}/{name}.png")), ""))
    return Picture(name, tuple(made))


def _data(path: Path | None) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() if path else ""


def score_rows(scores: Sequence[Score], letters: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the table of scores, its heading first."""
    a = letters[0]
    steps = [text for letter in letters[1:] for text in (f"{letter} - {a}", "")]
    rows = [("translator", "weights", "metric", *letters, "seed sd", *steps)]
    for score in scores:
        moved = [
            text
            for number, word in enumerate(score.words, 1)
            for text in ("" if score.step(number) is None else f"{score.step(number):+.4f}", word)
        ]
        noise = "unknown" if score.noise is None and direction(score.metric) is not None else _number(score.noise)
        rows.append((score.translator, score.weights, score.metric, *map(_number, score.values), noise, *moved))
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def reasons(scores: Sequence[Score], letters: Sequence[str]) -> list[str]:
    """Return each reason why a difference is not judged, once."""
    listed = [f"{letter}: {why}" for s in scores for letter, why in zip(letters[1:], s.why, strict=True) if why]
    return list(dict.fromkeys(listed))


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    names = arguments.names if len(arguments.names) > 1 else [*arguments.names, revisions.WORKSPACE]
    letters = string.ascii_uppercase[: len(names)]
    if len(names) > len(letters):
        raise UserError(f"{len(names)} names; compare takes {len(letters)} at most")
    if any(sides := [revisions.seeds_of(Path(), name) for name in arguments.names]):
        return _over_seeds(arguments, sides)
    if arguments.images < 0:
        raise UserError(f"--images {arguments.images}: a number from 0 on")
    page = new_file(arguments.output or WORK / "compare" / f"{_file_name(names)}.html")
    if arguments.output is not None and arguments.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"-o {arguments.output}: the page is HTML; name a file that ends in .html")
    root = Path()
    found = [revisions.find(root, name) for name in names]
    _check_sides(arguments.names[0], [[held] for held in found])
    scores = scores_of(found, tolerance.read_tolerances(root / METRICS / tolerance.FILE))
    params, notes = differing(found), [*others(found), *same_weights(found), *reasons(scores, letters)]
    shown, missing = pictures_of(found, letters, arguments.images)
    titles = [f"{held.cell.name} of {held.place}" for held in found]
    rows = score_rows(scores, letters)
    write_text(
        page,
        pages.render(
            __file__,
            "html",
            titles=list(zip(letters, titles, strict=True)),
            scores=rows,
            numbers=_numbers(len(names)),
            params=[("parameter", *letters), *params] if params else [],
            notes=[*notes, *missing],
            pictures=shown,
        ),
    )
    if arguments.json:
        print(json.dumps(_as_json(found, scores, params, [*notes, *missing], page), indent=2, sort_keys=True))
        return 0
    print("\n".join(printable(f"{letter}  {title}") for letter, title in zip(letters, titles, strict=True)))
    print("\n".join(["", *aligned(rows, right=_numbers(len(names))), ""]))
    _print_params(params, letters)
    print("\n".join(map(printable, [*notes, *missing, f"page: {there(page)}"])))
    return 0


def _over_seeds(arguments: argparse.Namespace, sides: Sequence[Sequence[str]]) -> int:
    """Compare means over seeds; ``sides`` has the cells of each name."""
    names, letters = arguments.names, string.ascii_uppercase
    if arguments.output is not None:
        raise UserError(f"-o {arguments.output}: the page is of single cells; name each with its seed")
    found = _families(names, sides)
    entries = [[baseline.Entry.of(held.metrics) for held in side] for side in found]
    titles = [
        f"{name.rpartition(':')[2]} of {side[0].place}, seeds {', '.join(str(held.cell.seed) for held in side)}"
        for name, side in zip(names, found, strict=True)
    ]
    judged = {
        letter: families.differences(entries[0], other, _foreign(found[0], side))
        for letter, other, side in zip(letters[1:], entries[1:], found[1:], strict=False)
    }
    firsts = [replace(side[0], cell=replace(side[0].cell, seed=0)) for side in found]  # seeds are no difference
    params, notes = differing(firsts), [*others(firsts), *_within(found), *_unjudged(judged)]
    if arguments.json:
        scores = [
            {"name": name, "translator": t, "weights": w, "metric": m, **asdict(one), "difference": one.step}
            for name, each in zip(names[1:], judged.values(), strict=True)
            for (t, w, m), one in each.items()
        ]
        told = {"names": titles, "scores": scores, "params": {key: values for key, *values in params}, "notes": notes}
        print(json.dumps(told, indent=2, sort_keys=True))
        return 0
    print("\n".join(printable(f"{letter}  {title}") for letter, title in zip(letters, titles, strict=False)))
    for letter, each in judged.items():
        print("\n".join(["", *aligned(_seed_rows(letter, each), right=range(3, 9))]))
    by_chance = f"of twenty settings that change nothing, one comes out below {families.LEVEL} by chance"
    print(f"\np: how often seeds alone make means that far apart (Welch's test); {by_chance}")
    _print_params(params, letters[: len(names)])
    print("\n".join(map(printable, notes)), end="\n" if notes else "")
    return 0


def _families(names: Sequence[str], sides: Sequence[Sequence[str]]) -> list[list[Held]]:
    """Return the cells of each name.

    Raises:
        UserError: a name is of one cell, or of one seed, or there is one name alone, or one thing under all names.
    """
    if single := [name for name, side in zip(names, sides, strict=True) if not side]:
        revisions.find(Path(), single[0])  # which says of a misspelt name what there is
        raise UserError(f"{single[0]}: is not all seeds of a DATASET-MODEL, as other names here; name all in one way")
    if len(names) < 2:
        revision, _, family = names[0].rpartition(":")
        raise _alone(names[0], family, of_workspace=revision in ("", revisions.WORKSPACE))
    if few := [name for name, side in zip(names, sides, strict=True) if len(side) < 2]:
        raise UserError(f"{few[0]}: scores of one seed, which tell of no noise; set run.seeds to [0, 1, 2] or more")
    found = [[revisions.find(Path(), cell) for cell in side] for side in sides]
    for name, side in zip(names, found, strict=True):
        _check_family(name, side)
    _check_sides(names[0], found)
    return found


def _check_sides(name: str, found: Sequence[Sequence[Held]]) -> None:
    """Refuse sides that are all one of the workspace: nothing but `equal` could come of them."""
    if len({tuple((held.cell, held.place) for held in side) for side in found}) == 1:
        first = found[0][0]
        if first.place == revisions.WORKSPACE:
            cell = first.cell.name if len(found[0]) == 1 else first.cell.family
            raise _alone(name, cell, of_workspace=True)


def _alone(name: str, cell: str, *, of_workspace: bool) -> UserError:
    other = "HEAD" if of_workspace else revisions.WORKSPACE
    return UserError(f"{name}: name what to compare it with, such as {other}:{cell}")


def _foreign(first: Sequence[Held], side: Sequence[Held]) -> str:
    return "" if side[0].cell.dataset == first[0].cell.dataset else FOREIGN


def _within(found: Sequence[Sequence[Held]]) -> list[str]:
    """Return a line for each thing that seeds should share and do not, or do and should not."""
    lines = [
        f"within {letter}: {line}"
        for letter, side in zip(string.ascii_uppercase, found, strict=False)
        for line in [*others(side), *same_weights(side)]
    ]
    weights = [{canonical_json(held.metrics.weights_digest) for held in side} for side in found]
    return lines + [
        f"{letter}: {len(shared)} of its seeds have weights of A, and Welch's test takes the two for independent"
        for letter, of_other in zip(string.ascii_uppercase[1:], weights[1:], strict=False)
        if (shared := weights[0] & of_other)
    ]


def _unjudged(judged: Mapping[str, Mapping[families.Key, families.Difference]]) -> list[str]:
    """Return each reason why a difference is not judged, once."""
    return list(dict.fromkeys(f"{letter}: {d.why}" for letter, each in judged.items() for d in each.values() if d.why))


def _seed_rows(letter: str, scores: Mapping[families.Key, families.Difference]) -> list[tuple[str, ...]]:
    """Return the table of a name beside the first one, its heading first."""
    rows = [("translator", "weights", "metric", "A", "sd", letter, "sd", f"{letter} - A", "p", "")]
    for key, one in scores.items():
        values = (value for pair in zip(one.means, one.sds, strict=True) for value in pair)
        p = "" if one.p is None else f"{one.p:.2g}"
        rows.append((*key, *map(_number, values), f"{one.step:+.4f}", p, one.word))
    return rows


def _check_family(name: str, side: Sequence[Held]) -> None:
    """Refuse seeds that are not of one recipe: metrics/ keeps those of an earlier one until they are trained again."""
    first = side[0]
    for held in side[1:]:
        for what, one, other in (
            ("settings", first.settings, held.settings),
            ("code of train", first.code["train"], held.code["train"]),
            ("prepared data", first.data, held.data),
        ):
            if one != other:
                raise UserError(
                    f"{name}: seed {held.cell.seed} was trained with other {what} than seed {first.cell.seed}; train "
                    f"all with `dvc repro`, or remove metrics/{held.cell.name}.json"
                )


def _print_params(params: Sequence[Sequence[str]], letters: Sequence[str]) -> None:
    if params:
        print("\n".join(aligned([("parameter", *letters), *params])))
    else:
        print("parameters: the same in all")


def _numbers(count: int) -> list[int]:
    """Return the columns of :func:`score_rows` that hold numbers."""
    return [*range(3, 4 + count), *range(4 + count, 2 * count + 3 + count, 2)]


def _file_name(names: Sequence[str]) -> str:
    allowed = string.ascii_letters + string.digits + "-_."
    return "-vs-".join("".join(c if c in allowed else "_" for c in name) for name in names)[:200]


def _as_json(
    found: Sequence[Held], scores: Sequence[Score], params: Sequence[tuple[str, ...]], notes: list[str], page: Path
) -> dict[str, Any]:
    return {
        "cells": [{"asked": held.asked, "cell": held.cell.name, "place": held.place} for held in found],
        "scores": [
            {
                "translator": s.translator,
                "weights": s.weights,
                "metric": s.metric,
                "values": s.values,
                "differences": [s.step(number) for number in range(1, len(found))],
                "seed_sd": s.noise,
                "verdicts": s.words,
            }
            for s in scores
        ],
        "params": {key: values for key, *values in params},
        "notes": notes,
        "page": page.as_posix(),
    }
