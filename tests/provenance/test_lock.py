"""Hashes are DVC's."""

import subprocess
import sys

import pytest
import yaml

from repix.errors import UserError
from repix.provenance import lock


def test_hashes_are_those_of_dvc(tmp_path):
    files = {"tree/b/x.txt": "1", "tree/a.txt": "22", "tree/é.txt": "", "tree/a/z": "3", "one.bin": "4"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "tree", "one.bin"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True, capture_output=True)
    for name in ("tree", "one.bin"):
        [out] = yaml.safe_load((tmp_path / f"{name}.dvc").read_text())["outs"]
        assert lock.md5(tmp_path / name) == out["md5"]
    assert lock.md5(tmp_path / "none") is None


def test_the_digest_is_of_every_out_and_of_nothing_else():
    entry = {"cmd": "x", "deps": [{"path": "d", "md5": "1"}], "outs": [{"path": "a", "md5": "2"}]}
    same = entry | {"cmd": "y", "deps": []}
    other = entry | {"outs": [{"path": "a", "md5": "3"}]}
    assert lock.digest({"s": entry}) == lock.digest({"s": same}) != lock.digest({"s": other})
    assert len(lock.digest({"s": entry})) == 16


@pytest.mark.parametrize("text", ["", "[]", "a: [", "stages: 3"])
def test_what_is_no_lock_is_refused(text):
    with pytest.raises(UserError, match=r"not a dvc\.lock"):
        lock.parse(text)


@pytest.mark.parametrize(
    "entry",
    [
        "3",
        "{outs: 3}",
        "{outs: [3]}",
        "{outs: [{md5: a}]}",
        "{outs: [{path: [a]}]}",
        "{outs: [{path: a, md5: {b: c}}]}",
        "{deps: null}",
        "{params: 1}",
        "{params: {params.yaml: [a]}}",
        "{params: {params.yaml: {1: a}}}",
        "{cmd: {a: b}}",
    ],
)
def test_an_entry_of_another_form_is_refused_and_named(entry):
    with pytest.raises(UserError, match=r"not a dvc\.lock \(the entry of 's@a'\); restore"):
        lock.parse(f"stages: {{t: {{cmd: x}}, s@a: {entry}}}")


def test_a_name_of_a_stage_that_is_no_text_is_refused():
    with pytest.raises(UserError, match=r"not a dvc\.lock \(the entry of 1.5\)"):
        lock.parse("stages: {t: {cmd: x}, 1.5: {cmd: x}}")


def test_in_a_group_of_params_the_one_that_differs_is_named():
    def entry(slope):
        return {"params": {"params.yaml": {"models.x": {"generator": {"slope": slope, "filters": [1, 2]}}, "a.b": 1}}}

    found = lock.causes("train@x", entry(0.2), entry(0.3))
    assert list(map(str, found)) == ["train@x: param models.x.generator.slope: 0.2 -> 0.3"]


def test_a_group_that_an_entry_leaves_empty_is_compared_by_the_keys_of_the_other_side():
    def causes(was, now):
        sides = ({"params": {"params.yaml": {"datasets.x.images": side}}} for side in (was, now))
        return list(map(str, lock.causes("preprocess@x", *sides)))

    assert causes({}, {}) == []
    assert causes({}, {"load_size": 3}) == ["preprocess@x: param datasets.x.images.load_size: (none) -> 3"]
    assert causes({"load_size": 3}, {}) == ["preprocess@x: param datasets.x.images.load_size: 3 -> (none)"]
    declared = {"params": {"params.yaml": {"datasets.x.images": {}}}}
    assert [str(one) for one in lock.causes("x", {}, declared)] == ["x: param datasets.x.images: (none) -> {}"]


def test_a_small_number_is_the_same_in_both_files():
    text = "stages: {s: {cmd: x, params: {params.yaml: {a: %s, b: %s}}}}"
    was, now = (lock.parse(text % values)["s"] for values in (("1e-05", "010"), ("0.00001", "10")))
    assert list(lock.causes("x", was, now)) == []
