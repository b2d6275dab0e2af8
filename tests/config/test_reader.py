"""Every mistake in params.yaml is one line with file, key, what was given and what is allowed."""

from __future__ import annotations

from typing import Literal

import pytest

from repix.config.reader import Settings, load, nearest, parse, read, section
from repix.errors import UserError
from repix.paths import NO_PROJECT


class Inner(Settings):
    rate: float = 0.1
    names: tuple[str, ...] = ()


class Outer(Settings):
    kind: Literal["patch", "pixel"]
    epochs: int = 1
    flip: bool = True
    size: int | tuple[int, int] = 1
    inner: Inner = Inner()


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes):
        (tmp_path / "params.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def mistake(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and len(said) < 300
    return said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epoch": 3}, "m.x.epoch: unknown key; did you mean 'epochs'?; known keys: kind, epochs, flip, size, inner"),
        ({"inner": {"rat": 3}}, "m.x.inner.rat: unknown key; did you mean 'rate'?; known keys: rate, names"),
        ({"kind": "pxel"}, "m.x.kind: 'pxel' is not one of 'patch' or 'pixel'; did you mean 'pixel'?"),
        ({"kind": 3}, "m.x.kind: 3 is not one of 'patch' or 'pixel'"),
        ({"epochs": "many"}, "m.x.epochs: 'many': input should be a valid integer"),
        ({"epochs": 1.5}, "m.x.epochs: 1.5: input should be a valid integer"),
        ({"epochs": True}, "m.x.epochs: True: true and false have no meaning here"),
        ({"epochs": None}, "m.x.epochs: None: input should be a valid integer"),
        ({"flip": "perhaps"}, "m.x.flip: 'perhaps': input should be a valid boolean"),
        ({"size": "big"}, "m.x.size: 'big': input should be a valid integer, unable to parse string as an integer, or"),
        ({"size": [1, 2, 3]}, "or list should have at most 2 items, not 3"),
        ({"inner": 3}, "m.x.inner: 3: input should be a mapping of its keys"),
        ({"inner": {"rate": float("nan")}}, "m.x.inner.rate: nan: input should be a finite number"),
        ({"inner": {"rate": float("inf")}}, "m.x.inner.rate: inf: input should be a finite number"),
        ({"inner": {"names": "abc"}}, "m.x.inner.names: 'abc': input should be a list"),
        ({"inner": {"names": ["a", 3]}}, "m.x.inner.names.1: 3: input should be a valid string"),
        ({"epochs": "x", "flip": "z"}, "(and 1 more)"),
        ({"epochs": ["x" * 500]}, " ...: input should be"),
    ],
)
def test_a_wrong_value_is_one_line(given, said):
    assert said in mistake(lambda: parse({"kind": "patch"} | given, Outer, "m.x"))


def test_a_missing_value_is_named():
    assert mistake(lambda: parse({}, Outer, "m.x")) == "params.yaml: m.x.kind: missing; give it a value"
    assert "m.x: expected a mapping, got None" in mistake(lambda: parse(None, Outer, "m.x"))


def test_a_number_in_quotes_is_a_number_all_the_same(file):
    file("m: {kind: patch, epochs: '3', inner: {rate: 2e-4}}")
    read_back = read("m", Outer)
    assert read_back.epochs == 3 and read_back.inner.rate == 0.0002


def test_settings_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        parse({"kind": "patch"}, Outer, "m").epochs = 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "params.yaml:3: not valid YAML: the key 'a' is given twice; delete one of the two"),
        ("a:\n  b: 1\n  b: 1\n", "params.yaml:3: not valid YAML: the key 'b' is given twice"),
        ("a: [1\nb: 2\n", "params.yaml:2: not valid YAML: "),
        ("a: b: c\n", "params.yaml:1: not valid YAML: mapping values are not allowed"),
        ("a:\n\t- b\n", "params.yaml:2: not valid YAML: found character"),
        ("a: *missing\n", "params.yaml:1: not valid YAML: found undefined alias"),
        ("? [1, 2]\n: 3\n", "params.yaml:1: not valid YAML: found unhashable key"),
        ("a: !!python/object/apply:os.getcwd []\n", "params.yaml:1: not valid YAML: the tag 'tag:yaml.org,2002:py"),
        ("a: 2024-13-01\n", "params.yaml:1: not valid YAML: 2024-13-01 is a date to some readers of YAML"),
        ("a: \x00", "params.yaml: not valid YAML: unacceptable character"),
        (b"a: \xff\xfe", "params.yaml: not UTF-8 text (byte 3); save it as UTF-8"),
        ("", "params.yaml: expected a mapping with the keys run"),
        ("- a\n", "params.yaml: expected a mapping with the keys run"),
    ],
)
def test_a_file_that_is_no_such_file_is_one_line(file, content, said):
    file(content)
    assert mistake(load).startswith(said)


def test_a_missing_file_or_a_folder_is_one_line(file, tmp_path):
    assert mistake(load) == f"params.yaml: {NO_PROJECT}"
    (tmp_path / "params.yaml").mkdir()
    assert "params.yaml: cannot be read: Is a directory" in mistake(load)


def test_anchors_and_merges_work(file):
    file("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n")
    assert load()["d"] == {"b": 3, "c": 2}


def test_a_missing_section_names_the_nearest(file):
    file("datasets: {facades: {}, maps: {}}\nrun: 3\n")
    said = mistake(lambda: section("datasets.facade"))
    assert said == "params.yaml: no datasets.facade; did you mean 'facades'?; datasets has facades, maps"
    assert mistake(lambda: section("model.x")) == "params.yaml: no model; the file has datasets, run"
    assert mistake(lambda: section("run.profile.x")) == "params.yaml: no run.profile"
    assert section("datasets.maps") == {}


def test_nearest_is_silent_where_nothing_is_near():
    assert nearest("layuot", ["layout", "urls"]) == "; did you mean 'layout'?"
    assert nearest("xyz", ["layout", "urls"]) == ""
