"""Tolerances: the arithmetic against scipy, and the promise behind it against simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from repix import metrics
from repix.config.gate import Gate
from repix.errors import UserError
from repix.regression import gate, tolerance
from repix.regression.baseline import Baseline
from repix.regression.tolerance import Tolerances, estimate

from .test_gate import changed, entry


def family(k: int = 5, **options) -> tolerance.Family:
    return estimate({f"toy-net-{s}": entry(s) for s in range(k)}, Gate(**options), params={"a": 1}, run_key="key")


def test_the_numbers_are_those_of_scipy():
    found = family(5, false_alarm=0.06, power=0.8)
    ssim = found.scores["source_to_target"]["last"]["ssim"]
    values = [0.50 + 0.01 * s for s in range(5)]
    sd = np.std(values, ddof=1)
    t = stats.t.ppf(1 - 0.06 / 3, 4)
    assert found.comparisons == 3 and found.t == pytest.approx(t) and found.factor == pytest.approx(math.sqrt(2) * t)
    assert ssim.mean == pytest.approx(np.mean(values)) and ssim.sd == pytest.approx(sd)
    assert (ssim.low, ssim.high, ssim.range) == (0.50, 0.54, pytest.approx(0.04))
    assert ssim.tolerance == pytest.approx(math.sqrt(2) * t * sd)
    assert ssim.detectable == pytest.approx(ssim.tolerance + math.sqrt(2) * stats.t.ppf(0.8, 4) * sd)


def test_where_a_tolerance_came_from_stands_beside_it():
    found = family()
    assert (found.k, found.n, found.profile, found.params, found.run_key) == (5, 4, "portable", {"a": 1}, "key")
    assert [(one.cell, one.weights_digest) for one in found.provenance] == [
        (f"toy-net-{s}", {"generator": f"weights {s}"}) for s in range(5)
    ]


def test_the_file_comes_back_as_it_was_written(tmp_path):
    written = Tolerances(families={"toy-net": family()})
    written.write(tmp_path / "tolerances.json")
    assert tolerance.read_tolerances(tmp_path / "tolerances.json") == written
    assert tolerance.read_tolerances(tmp_path / "none.json").families == {}


def test_seeds_are_sorted_as_numbers():
    cells = {f"toy-net-{s}": entry(s) for s in (10, 9, 2)}
    assert [s.seed for s in estimate(cells, Gate(), params={}, run_key="").provenance] == [2, 9, 10]


def test_one_seed_or_unlike_seeds_have_no_noise():
    with pytest.raises(UserError, match="two seeds or more"):
        family(1)
    cells = {"toy-net-0": entry(0), "toy-net-1": changed(entry(1), "n", to=8)}
    with pytest.raises(UserError, match="cannot be compared: n: 4 -> 8"):
        estimate(cells, Gate(), params={}, run_key="")
    with pytest.raises(UserError, match="none of the scores is gated"):
        family(3, variants=["best"])


@pytest.mark.parametrize(
    ("metric", "expected"), [("fid_768", -1), ("ssim", 1), ("psnr", 1), ("kid_2048_ab", -1), ("x", None)]
)
def test_directions_follow_the_first_part_of_the_name(metric, expected):
    assert metrics.direction(metric) == expected


def test_another_seed_alone_is_red_no_more_often_than_promised():
    """10 seeds, 3 independent scores: of 600 new pairs at most 5 % are red (drawn: 2 sd more), and not next to none."""
    rng = np.random.default_rng(0)

    def drawn(seed: int):
        l1, ssim, swd = rng.normal(size=3)
        return entry(seed, l1=0.1 + 0.01 * l1, ssim=0.5 + 0.05 * ssim, swd=70 + 5 * swd)

    red, trials = 0, 600
    for _ in range(trials):
        found = estimate({f"toy-net-{seed}": drawn(seed) for seed in range(10)}, Gate(), params={}, run_key="")
        limits = Tolerances(families={"toy-net": found})
        old, new = drawn(10), drawn(11)
        red += gate.judge(Baseline(cells={"toy-net-0": old}), {"toy-net-0": new}, limits).exit_code == 1
    assert 0.025 < red / trials < 0.068


def test_seed_change_counts_pairs_with_the_new_seed_left_out():
    quiet = family(6).seed_change
    assert (quiet.pairs, quiet.new_seeds) == (30, 5) and quiet.green == 30
    cells = {f"toy-net-{s}": entry(s % 2) for s in range(5)} | {"toy-net-5": entry(5, ssim=0.2)}
    loud = estimate(cells, Gate(), params={}, run_key="").seed_change
    # The outlier is red against each of the others; with it among the seeds nothing else is.
    assert (loud.green, loud.green_new_seeds) == (25, 4)
    assert family(2).seed_change is None
