"""Means over seeds of two settings: what is called noise, and what is not judged."""

from __future__ import annotations

import math
import warnings

import pytest
from scipy.stats import nct, t, ttest_ind

from repix.regression import families
from repix.regression.baseline import Entry
from repix.regression.tolerance import welch

ONE, OTHER = (0.10, 0.11, 0.12, 0.10), (0.20, 0.22, 0.21)


def entries(values, metric: str = "l1", n: int = 3, **more) -> list[Entry]:
    protocol = {metric: {"definition": "d"}} | more
    return [
        Entry(weights_digest={}, n=n, scores={"source_to_target": {"last": {metric: value}}}, protocol=protocol)
        for value in values
    ]


def only(one, other, *rest) -> families.Difference:
    [found] = families.differences(one, other, *rest).values()
    return found


def test_welch_takes_neither_equal_noise_nor_equal_numbers_for_granted():
    assert welch(ONE, OTHER) == pytest.approx(ttest_ind(ONE, OTHER, equal_var=False).pvalue)
    assert welch(ONE, OTHER) != pytest.approx(ttest_ind(ONE, OTHER).pvalue)
    with warnings.catch_warnings(action="error"):  # of precision, where one side has no noise
        assert welch((0.1, 0.1), ONE) == pytest.approx(0.2152, rel=0.01)
    assert welch((1.0, 1.0), (1.0, 1.0, 1.0)) == 1.0 and welch((1.0, 1.0), (2.0, 2.0)) == 0.0


@pytest.mark.parametrize(
    ("metric", "one", "other", "word"),
    [
        ("l1", ONE, OTHER, "worse"),
        ("l1", OTHER, ONE, "better"),
        ("ssim", ONE, OTHER, "better"),
        ("ssim", (0.1, 0.3), (0.2, 0.25), "noise"),
        ("l1", (0.5, 0.5), (0.5, 0.5), "equal"),
        ("mine", ONE, OTHER, ""),  # a metric of a later version: nobody knows which way is better
    ],
)
def test_a_difference_beyond_what_seeds_make_has_a_word(metric, one, other, word):
    found = only(entries(one, metric), entries(other, metric))
    assert found.word == word and found.step == pytest.approx(sum(other) / len(other) - sum(one) / len(one))


@pytest.mark.parametrize("more", [{"n": 4}, {"profile": "fast"}, {"split": "val"}])
def test_what_was_measured_otherwise_is_not_judged(more):
    found = only(entries(ONE), entries(OTHER, **more))
    assert (found.p, found.word) == (None, "") and "measured otherwise" in found.why
    within = [*entries(OTHER[:1]), *entries(OTHER[1:], **more)]
    assert only(entries(ONE), within).p is None and only(within, entries(ONE)).p is None
    assert only(entries(ONE), entries(OTHER), "of other data").why == "of other data"


def test_what_is_no_number_is_not_judged():
    found = only(entries(ONE), entries((0.1, math.nan)))
    assert (found.p, found.word, found.why) == (None, "", "not a finite number")


def test_a_score_that_a_seed_lacks_is_left_out():
    assert families.differences(entries(ONE), [*entries(OTHER), *entries((None,))]) == {}


@pytest.mark.parametrize(("seeds", "step"), [(5, 2), (3, 3)])
def test_what_so_many_seeds_see_is_what_the_page_says(seeds, step):
    """docs/gate.md: a difference of so many standard deviations is seen three times in four."""
    degrees, moved = 2 * seeds - 2, step * (seeds / 2) ** 0.5
    limit = t.ppf(1 - families.LEVEL / 2, degrees)
    assert (
        0.7 < nct.sf(limit, degrees, moved) < 0.85 and pytest.approx(1 / 3, abs=0.01) == 1 - (1 - families.LEVEL) ** 8
    )
