"""The dialect is DVC's: held against ruamel.yaml, as DVC calls it, on a table and at random."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
import yaml
from ruamel.yaml import YAML, YAMLError

from repix import yaml12
from repix.errors import UserError

BODIES = """
0 1 7 8 9 00 01 007 010 08 09 12 1_000 1__0 _1 1_ _ 0_ 0x 0x1f 0X1F 0xFF 0xG 0x_1 0o 0o10 0o8 0O10 0b 0b101 0b2 0b_1
0.0 1.0 1. .5 . .. .5. 5_0.5 1.5e3 1.5E3 1.5e+3 1.5e-3 1.e3 .5e3 .5e+3 .5e-3 .e3 2e-4 1e-05 1e5 1E5 1e 1e+ e5 1e400
1e-400 1_0e1_0 1.2.3 1,000 inf .inf .Inf .INF .iNF nan .nan .NaN .NAN NaN Infinity 1:30 190:20:30 1:30.5 190:20:30.15
12:60 0:0 2024 20240101 12345678901234567890 0.1234567890123456789 123e4 99999999999999999999999999999e12
"""
WORDS = """
yes Yes YES no No NO on On ON off Off OFF y Y n N true True TRUE tRUE false False FALSE fALSE null Null NULL nULL ~
none None auto all best -- --- a-b a_b a.b a/b a:b http://x.y/z file:x.zip synthetic:facades?size=64&n=1 AtoB x=y 3x x3
@x %x `x | > < #x 'yes' "yes" '010' "2e-4" '' "" '1' 'null' "~" 44e95cbf 1234e5678 '44e5' 'a''b' "a\\tb"
"\\u00e9" é ç1
"""
SCALARS = list(dict.fromkeys([sign + body for sign in ("", "-", "+") for body in BODIES.split()] + WORDS.split()))
DATES = ["2024-01-01", "2024-13-01", "2024-01-01T00:00:00Z", "2001-12-14 21:59:43.10 -5", "2024-1-1 1:00:00"]


def dvc(text: str):
    """What DVC reads, which calls exactly this; an error where it raises one."""
    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError, AttributeError, IndexError):
        return YAMLError


def ours(text: str):
    try:
        return yaml12.load(text, "x.yaml")
    except UserError:
        return YAMLError


def same(a, b) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_scalar_is_what_it_is_to_dvc():
    assert len(SCALARS) > 300
    for text in SCALARS:
        for form in ("{}", "a: {}\n", "- {}\n", "a: {}  # comment\n", "[{}]", "{{a: {}}}", "{}: 1\n"):
            document = form.format(text)
            assert same(ours(document), dvc(document)), (document, ours(document), dvc(document))


def test_a_scalar_made_at_random_is_what_it_is_to_dvc():
    rng = random.Random(0)
    for _ in range(1500):
        text = "a: " + "".join(rng.choices("0123456789+-._eExXobaAnNfFtTrueE:~yYsoO", k=rng.randint(1, 6))) + "\n"
        if ours(text) is YAMLError and dvc(text) is not YAMLError:
            assert "-" in text and len(text) > 10, text  # only dates are refused beyond what DVC refuses
        else:
            assert same(ours(text), dvc(text)), (text, ours(text), dvc(text))


@pytest.mark.parametrize("text", DATES)
def test_a_date_is_refused_and_a_quoted_one_is_text(text):
    with pytest.raises(UserError, match=r"^x\.yaml:2: not valid YAML: .* put it in quotes"):
        yaml12.load(f"b: 1\na: {text}\n", "x.yaml")
    assert yaml12.load(f"a: '{text}'\n", "x.yaml") == {"a": text} == dvc(f"a: '{text}'\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n",
        "a: &x {b: 1}\ne: &y {c: 2}\nd: {<<: [*x, *y], f: 1}\n",
        "a: &x [1, yes, 010]\nb: *x\n",
        "a: |\n  yes\n  010\nb: >-\n  on\n  off\n",
        "a:\n- 1\n- 2\nb:\n  - c: yes\n",
        "? a\n: 1\n",
        "a: 1\nb: 1\na: 2\n",
        "{a: 1, a: 2}\n",
        "1: a\n'1': b\n",
        "1: a\n01: b\n",
        "yes: 1\ntrue: 2\nnull: 3\n1.5: 4\n",
        "a: !!str 010\nb: !!int '7'\nc: !!float 3\n",
        "--- \na: 1\n...\n",
        "a: {b, c: , d: ''}\n",
        "{a: [1, [yes, {b: 2e-4}]], c: 'x: y'}\n",
        "a: 'it''s'\nb: \"\\x41\\u0042 \\\n  c\"\n",
        "a: [1\n",
        "a: b: c\n",
        "a:\n\t- b\n",
        "a: *missing\n",
        "- a\nb: 1\n",
        "a: !!python/object/apply:os.getcwd []\n",
    ],
)
def test_a_document_is_what_it_is_to_dvc(text):
    assert same(ours(text), dvc(text)), (ours(text), dvc(text))


def test_a_key_given_twice_is_named():
    with pytest.raises(UserError, match=r"^x\.yaml:3: not valid YAML: the key 10 is given twice; delete"):
        yaml12.load("a:\n  10: x\n  010: y\n", "x.yaml")


def test_what_a_merge_puts_beside_a_key_is_no_second_one():
    text = "a: &a {x: 0}\ntop: {deep: {inner: &i {<<: *a, x: 1}}}\nother: {<<: *i}\n"
    assert yaml12.load(text, "x.yaml")["other"] == {"x": 1}
    with pytest.raises(UserError, match="the key 'x' is given twice"):
        yaml12.load("a: &a {x: 0}\nb: {<<: *a, x: 1, x: 2}\n", "x.yaml")


def test_a_line_that_changes_the_dialect_is_refused():
    with pytest.raises(UserError, match=r"^x\.yaml: not valid YAML: a %YAML line"):
        yaml12.load("# so\n\n%YAML 1.1\n---\na: yes\n", "x.yaml")


def test_what_is_written_is_read_back_by_every_reader():
    plain = [ours(text) for text in SCALARS if ours(text) is not YAMLError]
    texts = SCALARS + DATES + ["=", "<<", "a: b", "a #b", " a", "a ", "a\nb", "\t", "{", "[x", "é", "x" * 300]
    rng = random.Random(1)
    floats = [rng.uniform(-1, 1) * 10.0**power for power in range(-320, 300, 7)] + [1e-05, 2e-4, 1e22, -0.0]
    values = plain + texts + floats + [None, True, False, 10**30, [], {}, [[]], {"a": {"b": [1, {"c": "no"}]}}]
    shared = ["yes"]
    values += [{"a": shared, "b": shared}]
    for value, form in itertools.product(values, (lambda v: v, lambda v: {"k": [v]})):
        text = yaml12.dump(form(value))
        for reader in (ours, dvc, yaml.safe_load):
            assert same(reader(text), form(value)), (value, text, reader)


@pytest.mark.parametrize("text", ["[" * 200_000, "a: " + "{b: " * 200_000, "- " * 20_000 + "x", "[" * 101 + "]" * 101])
def test_a_text_that_nests_without_end_is_one_line(text):
    with pytest.raises(UserError, match=r"x.yaml:1: not valid YAML: nested deeper than 100 levels") as caught:
        yaml12.load(text, "x.yaml")
    assert "\n" not in str(caught.value)
    assert yaml12.load(f"{'[' * 100}{']' * 100}", "x.yaml")


def nested(item: str, levels: int = 8) -> str:
    """Return a text whose levels each refer ten times to the one before."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} " + item.replace("@", ", ".join([f"*a{level - 1}"] * 10)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [nested("{<<: [@]}"), nested("{<<: [@], l: 1}"), nested("[@]"), "a: &a [*a]", "a: &a {b: *a}"]
)
def test_references_that_stand_for_more_than_there_is_are_refused_soon(text):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"x.yaml(:\d+)?: not valid YAML: ") as caught:
        yaml12.load(text, "x.yaml")
    assert time.monotonic() - began < 8 and "\n" not in str(caught.value)
    assert yaml12.load(nested("{<<: [@]}", 3), "x.yaml")["a2"] == {"k": 1}


@pytest.mark.parametrize("data", ["a: é".encode("latin-1"), b"\xff\xfe\x00a", b"a: \x81"])
def test_a_file_in_another_encoding_is_one_line(tmp_path, data):
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(UserError, match=r"params.yaml: not UTF-8 text \(byte \d\); save it as UTF-8"):
        yaml12.read(tmp_path / "params.yaml")
    with pytest.raises(FileNotFoundError):
        yaml12.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!!bool maybe", "'maybe' is neither true nor false"),
        ("!!set {x, y}", "the tag 'tag:yaml.org,2002:set' stands for no plain value; take it away"),
        ("!!binary aGVsbG8=", "the tag 'tag:yaml.org,2002:binary' stands"),
        ("&b !!omap [x: *b]", "the tag 'tag:yaml.org,2002:omap' stands"),
        ("&b !!pairs [x: *b]", "the tag 'tag:yaml.org,2002:pairs' stands"),
        ("!\x1b[2J x", None),
        ("0x" + "f" * 5000, "a number of 5002 digits"),
    ],
)
def test_a_tag_or_number_that_stands_for_no_plain_value_is_one_line(text, why):
    with pytest.raises(UserError) as caught:
        yaml12.load(f"b: 1\na: {text}\n", "x.yaml")
    assert str(caught.value).isprintable()
    assert why is None or str(caught.value).startswith(f"x.yaml:2: not valid YAML: {why}")


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: !!str 1\n", "a: &x 1\n"])
def test_what_dvc_does_not_write_is_not_plain(text):
    assert yaml12.is_plain("a: '&x'\nb: {c: [1, '!d', e & f]}\n") and not yaml12.is_plain(text)
