"""Every verdict of the gate, each made by construction, and the exit code that it ends with."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest

from repix.config.gate import Gate
from repix.regression import gate, report, tolerance
from repix.regression.baseline import Baseline, Entry

CELL = "toy-net-0"
ROOT = Path(__file__).resolve().parents[2]


def entry(seed: int = 0, **scores: float | None) -> Entry:
    """Return a cell's scores; ``scores`` replace those of the last weights."""
    last = {"l1": 0.10 + 0.001 * seed, "ssim": 0.50 + 0.01 * seed, "swd": 70.0 + seed, "fid": None} | scores
    return Entry(
        weights_digest={"generator": f"weights {seed}"},
        n=4,
        scores={"source_to_target": {"last": last, "best": None}},
        protocol={
            "split": "test",
            "profile": "portable",
            "images": {"source_to_target": {"n": 4, "size": [16, 16]}},
            "reference": {"source_to_target": {"n": 4, "digest": "a" * 64}},
            "l1": {"scale": "[0, 1]"},
            "ssim": {"window": "11 x 11"},
            "swd": {"directions": 512},
            "fid": {"reason": "not asked for (evaluate.fid)"},
        },
    )


def changed(given: Entry, *path: str, to) -> Entry:
    """Return ``given`` with one leaf replaced."""
    tree = copy.deepcopy(given.model_dump())
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return Entry(**tree)


def noise(**options) -> tolerance.Tolerances:
    """Return tolerances from five seeds."""
    cells = {f"toy-net-{seed}": entry(seed) for seed in range(5)}
    family = tolerance.estimate(cells, Gate(**options), params={}, run_key="key")
    return tolerance.Tolerances(families={"toy-net": family})


def judge(now: Entry | None, old: Entry | None = None, limits: tolerance.Tolerances | None = None) -> gate.Result:
    baseline = Baseline(cells={CELL: old or entry()})
    return gate.judge(baseline, {} if now is None else {CELL: now}, noise() if limits is None else limits)


def verdicts(result: gate.Result) -> dict[str, str]:
    return {v.metric: v.verdict for v in result.verdicts}


def other_weights(**scores: float | None) -> Entry:
    return changed(entry(**scores), "weights_digest", to={"generator": "other"})


def test_unchanged_is_a_pass():
    result = judge(entry())
    assert (result.verdict, result.exit_code) == ("pass", 0)
    assert verdicts(result) == {"l1": "pass", "ssim": "pass", "swd": "pass"}


@pytest.mark.parametrize(("metric", "worse"), [("l1", 1), ("ssim", -1), ("swd", 1)])
def test_the_tolerance_is_the_line_and_it_is_one_sided(metric, worse):
    limits = noise()
    scores = limits.families["toy-net"].scores["source_to_target"]["last"]
    old = entry().scores["source_to_target"]["last"][metric]

    def at(factor: float) -> str:
        moved = old + worse * factor * scores[metric].tolerance
        return verdicts(judge(other_weights(**{metric: moved}), limits=limits))[metric]

    assert [at(0.99), at(1.01)] == ["pass", "fail"]
    assert [at(-0.99), at(-1.01)] == ["pass", "improved"]


def test_one_score_that_fails_fails_the_gate_and_an_improvement_does_not():
    assert judge(other_weights(ssim=0.1)).exit_code == 1
    assert judge(other_weights(ssim=0.9)).exit_code == 0
    assert judge(other_weights(ssim=0.9, swd=200.0)).exit_code == 1


@pytest.mark.parametrize(
    ("path", "to", "named"),
    [
        (("n",), 8, "n: 4 -> 8"),
        (("protocol", "profile"), "fast", "profile: portable -> fast"),
        (("protocol", "split"), "val", "split: test -> val"),
        (("protocol", "reference", "source_to_target", "digest"), "b" * 64, "reference.digest: aaaaaaaa -> bbbbbbbb"),
        (("protocol", "images", "source_to_target", "size"), [32, 32], "images.size: [16, 16] -> [32, 32]"),
    ],
)
def test_what_was_measured_otherwise_cannot_be_compared(path, to, named):
    result = judge(changed(other_weights(ssim=0.1), *path, to=to))
    assert (result.verdict, result.exit_code) == ("incomparable", 2)
    assert set(verdicts(result).values()) == {"incomparable"}
    assert all(named in v.why for v in result.verdicts)


def test_a_metric_that_is_defined_otherwise_is_alone_in_that():
    result = judge(changed(other_weights(), "protocol", "swd", "directions", to=256))
    assert verdicts(result) == {"l1": "pass", "ssim": "pass", "swd": "incomparable"}
    assert "swd.directions: 512 -> 256" in next(v.why for v in result.verdicts if v.metric == "swd")
    assert result.exit_code == 2


def test_other_features_cannot_be_compared():
    measured = changed(entry(fid=50.0), "protocol", "fid", to={"features": {"dims": 2048, "weights": "a" * 64}})
    other = changed(measured, "protocol", "fid", "features", "weights", to="b" * 64)
    result = judge(other, measured)
    assert verdicts(result)["fid"] == "incomparable"
    assert "fid.features.weights: aaaaaaaa -> bbbbbbbb" in str(result.verdicts)
    assert result.exit_code == 2


def test_features_by_other_weights_are_named():
    """The weights of the features are in the metric's name: nothing is called missing without a hint."""
    old, new = (
        changed(other_weights(**{name: 30.0}), "protocol", name, to={"features": {"dims": 64}})
        for name in ("fid_64_aaaaaaaa", "fid_64_bbbbbbbb")
    )
    result = judge(new, old)
    assert result.exit_code == 2 and verdicts(result)["fid_64_bbbbbbbb"] == "new"
    (gone,) = (v for v in result.verdicts if v.metric == "fid_64_aaaaaaaa")
    assert gone.verdict == "incomparable" and gone.why == "no longer measured: on other features now, fid_64_bbbbbbbb"


def test_equal_weights_with_unequal_metrics_outweigh_everything():
    result = judge(entry(ssim=0.1, l1=0.1 + 1e-12))
    assert verdicts(result) == {"l1": "contradiction", "ssim": "contradiction", "swd": "pass"}
    assert (result.verdict, result.exit_code) == ("contradiction", 3)


def test_equal_weights_may_round_otherwise_where_the_profile_promises_no_bits():
    fast = changed(entry(), "protocol", "profile", to="fast")
    limits = tolerance.Tolerances(
        families={"toy-net": noise().families["toy-net"].model_copy(update={"protocol": fast.protocol})}
    )
    nearly = changed(fast, "scores", "source_to_target", "last", "swd", to=70.0 * (1 + 1e-6))
    assert judge(nearly, fast, limits).exit_code == 0
    assert judge(changed(nearly, "scores", "source_to_target", "last", "swd", to=70.1), fast, limits).exit_code == 3


def test_scores_of_the_best_weights_do_not_contradict_the_digest_of_the_last():
    one, two = (changed(entry(), "scores", "source_to_target", "best", to={"ssim": value}) for value in (0.5, 0.6))
    result = judge(two, one)
    assert [v.verdict for v in result.verdicts if v.variant == "best"] == ["incomparable"]


def averaged(digest: str, **scores: float) -> Entry:
    """Return an entry with an average of the weights beside the last ones."""
    given = entry()
    given = changed(given, "scores", "source_to_target", "ema", to=scores)
    return given.model_copy(update={"weights_digest": given.weights_digest | {"ema/generator": digest}})


def test_an_average_is_held_by_its_own_digest_and_the_last_weights_by_theirs():
    same = judge(averaged("e", ssim=0.5), averaged("e", ssim=0.6))
    assert [v.variant for v in same.verdicts if v.verdict == "contradiction"] == ["ema"]
    other = judge(averaged("f", ssim=0.5), averaged("e", ssim=0.6))
    assert not [v for v in other.verdicts if v.verdict == "contradiction"]
    last = changed(averaged("f", ssim=0.5), "scores", "source_to_target", "last", "l1", to=0.2)
    found = judge(last, averaged("e", ssim=0.6))
    assert [(v.variant, v.metric) for v in found.verdicts if v.verdict == "contradiction"] == [("last", "l1")]


def test_no_baseline_no_cell_a_new_cell():
    nothing = gate.judge(None, {CELL: entry()}, noise())
    assert nothing.exit_code == 2 and "no baseline" in nothing.verdicts[0].why
    gone = judge(None)
    assert gone.exit_code == 2 and "no toy-net-0.json" in gone.verdicts[0].why
    more = gate.judge(Baseline(cells={CELL: entry()}), {CELL: entry(), "toy-net-1": entry(1)}, noise())
    assert more.exit_code == 0 and [v.verdict for v in more.verdicts if v.cell == "toy-net-1"] == ["new"]


def test_an_empty_comparison_is_no_pass():
    assert gate.judge(Baseline(cells={}), {}, noise()).exit_code == 2


def test_a_metric_that_became_null_and_one_that_is_new():
    null = changed(other_weights(swd=None), "protocol", "swd", to={"reason": "not asked for (evaluate.swd)"})
    result = judge(null)
    assert verdicts(result)["swd"] == "incomparable" and result.exit_code == 2
    assert any("no longer measured: not asked for (evaluate.swd)" in v.why for v in result.verdicts)
    back = judge(other_weights(), null)
    assert verdicts(back)["swd"] == "new" and back.exit_code == 0


def test_a_score_that_is_no_number_fails():
    assert judge(other_weights(ssim=float("nan"))).exit_code == 1


def test_without_known_noise_only_equal_scores_pass():
    none = tolerance.Tolerances(families={})
    assert judge(changed(entry(), "weights_digest", to={"generator": "o"}), limits=none).exit_code == 0
    result = judge(other_weights(ssim=0.500001), limits=none)
    assert result.exit_code == 2 and any("repix seeds toy net --write" in v.why for v in result.verdicts)


def test_a_tolerance_that_was_measured_otherwise_is_not_used():
    family = noise().families["toy-net"]
    limits = tolerance.Tolerances(families={"toy-net": family.model_copy(update={"n": 100})})
    result = judge(other_weights(), limits=limits)
    assert result.exit_code == 2 and "measured otherwise: n: 100 -> 4" in result.verdicts[0].why


def test_what_is_not_gated_is_shown():
    result = judge(other_weights(swd=500.0), limits=noise(metrics=["ssim"]))
    assert verdicts(result) == {"l1": "shown", "ssim": "pass", "swd": "shown"} and result.exit_code == 0


def test_failing_outweighs_what_cannot_be_compared():
    both = changed(other_weights(ssim=0.1), "protocol", "swd", "directions", to=256)
    assert judge(both).exit_code == 1


def test_nothing_heavy_is_imported():
    code = (
        "import sys; sys.path.insert(0, 'src'); import repix.commands.gate; "
        "print(sorted({'numpy', 'scipy', 'pandas', 'keras', 'tensorflow', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_the_cells_that_were_judged_are_named_and_the_others_with_their_reason():
    """A green gate that looked at one cell of four says so, in each of its forms."""
    nothing = changed(entry(), "scores", to={"source_to_target": {"last": None, "best": None}})
    baseline = Baseline(cells={CELL: entry(), "toy-net-1": entry(1), "toy-net-2": nothing})
    other = changed(other_weights(), "n", to=8)
    result = gate.judge(baseline, {CELL: entry(), "toy-net-2": nothing, "toy-net-3": other}, noise())
    assert result.judged() == {CELL: 3}
    assert result.not_judged() == {
        "toy-net-1": "in the baseline, but there is no toy-net-1.json; run `dvc repro`, or --accept that it is gone",
        "toy-net-2": "neither the baseline nor this run has a score of it",
        "toy-net-3": "not in the baseline; `repix gate --accept` takes it in",
    }
    printed = report.text(result).splitlines()
    assert "judged: toy-net-0 (3 of 3 scores)" in printed
    assert "not judged: toy-net-2: neither the baseline nor this run has a score of it" in printed
    assert "- judged: toy-net-0 (3 of 3 scores)" in report.markdown(result).splitlines()
    assert report.as_json(result)["judged"] == {CELL: 3} and len(report.as_json(result)["not_judged"]) == 3


def test_a_cell_of_which_nothing_can_be_compared_was_not_judged():
    result = judge(changed(other_weights(), "n", to=8))
    assert result.judged() == {} and "n: 4 -> 8" in result.not_judged()[CELL]
    assert "judged: no cell" in report.text(result)
    none = gate.judge(None, {CELL: entry()}, noise())
    assert "there is no baseline" in none.not_judged()[CELL]


def test_a_cell_whose_gated_scores_are_shown_only_was_not_judged():
    result = judge(entry(ssim=None), entry(ssim=None), noise(metrics=("ssim",)))
    assert result.not_judged() == {CELL: "none of its scores is gated"}


def test_a_gate_that_judged_nothing_holds_nothing():
    """A baseline that lost its scores, or its cells, is no pass."""
    empty = changed(entry(), "scores", to={"source_to_target": {}})
    assert judge(other_weights(ssim=0.1), empty).exit_code == 2
    assert gate.judge(Baseline(cells={}), {CELL: entry()}, noise()).exit_code == 2


def test_a_baseline_that_is_no_number_is_no_pass():
    for value in (float("nan"), float("inf"), float("-inf")):
        accepted = changed(entry(), "scores", "source_to_target", "last", "ssim", to=value)
        result = judge(other_weights(ssim=0.1), accepted)
        assert verdicts(result)["ssim"] == "incomparable" and result.exit_code == 2


def test_a_score_that_lost_its_definition_cannot_be_compared():
    now = other_weights()
    gone = changed(now, "protocol", to={k: v for k, v in now.protocol.items() if k != "ssim"})
    assert verdicts(judge(gone))["ssim"] == "incomparable"
    assert verdicts(judge(now, changed(entry(), "protocol", to=gone.protocol)))["ssim"] == "incomparable"
