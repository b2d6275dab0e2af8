"""``evaluate`` and ``features``: what may be asked for, and what is refused in one line."""

from __future__ import annotations

import pytest

from repix.config.evaluation import Evaluate, FeatureWeights
from repix.config.reader import parse
from repix.errors import UserError


def test_the_default_needs_no_weights():
    default = parse({}, Evaluate, "evaluate")
    assert default.swd and not default.fid and not default.kid and default.features is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fid": True}, "name an entry of `features`"),
        ({"kid": True}, "name an entry of `features`"),
        ({"dims": [100]}, "evaluate.dims.0"),
        ({"dims": []}, "evaluate.dims"),
        ({"dims": [64, 64]}, "twice"),
        ({"fids": True}, "did you mean 'fid'"),
    ],
)
def test_mistakes_are_named(given, said):
    with pytest.raises(UserError) as caught:
        parse(given, Evaluate, "evaluate")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_weights_are_pinned():
    entry = parse({"urls": ["file:///w.pth"], "sha256": "ab" * 32}, FeatureWeights, "features.inception")
    assert entry.sha256 == "ab" * 32
    for wrong, said in (
        ({"urls": ["file:///w.pth"]}, r"features\.inception\.sha256: missing"),
        ({"urls": [], "sha256": "ab" * 32}, r"features\.inception\.urls: .*at least 1"),
        ({"urls": ["x"], "sha256": "AB" * 32}, "64 hexadecimal digits in lower case"),
        ({"urls": ["x"], "sha256": "ab"}, "64 hexadecimal digits in lower case"),
    ):
        with pytest.raises(UserError, match=said):
            parse(wrong, FeatureWeights, "features.inception")
