"""A run key changes with every declared input, and a record is written and read with the same bytes."""

import pytest

from repix.provenance import lineage
from repix.provenance.code import Closure
from repix.provenance.lineage import Lineage
from tests.provenance.test_code import TOY, tree

DECLARED = {
    "stage": "train",
    "cell": "sample-tiny-0",
    "params": {"lr": 2e-4, "layers": [1, 2]},
    "inputs": {"data/prepared/sample": "aa"},
    "code": {"stages/train.py": "bb"},
    "environment": {"python": "3.11", "numpy": "2.4.6"},
    "profile": {"name": "portable", "threads": 2},
}


def test_the_run_key_is_a_constant_of_its_inputs():
    """Pinned: a change of this value forgets every checkpoint and every tracked run."""
    assert lineage.run_key(**DECLARED) == "1538993c94aeb2d618367793f977713f8315fcdb0345e1b2930dc1720cf95b52"


@pytest.mark.parametrize("name", DECLARED)
def test_every_declared_input_is_in_the_run_key(name):
    value = DECLARED[name]
    changed = f"{value}2" if isinstance(value, str) else value | {"new": "cc"}
    assert lineage.run_key(**DECLARED | {name: changed}) != lineage.run_key(**DECLARED)
    one, other = (Lineage(**given, run_key="").parts() for given in (DECLARED, DECLARED | {name: changed}))
    assert one.keys() == DECLARED.keys() and [part for part in one if one[part] != other[part]] == [name]


def test_order_of_keys_and_outputs_are_not_in_the_run_key():
    backwards = {
        name: value if isinstance(value, str) else dict(reversed(value.items())) for name, value in DECLARED.items()
    }
    assert lineage.run_key(**backwards) == lineage.run_key(**DECLARED)
    record = Lineage(**DECLARED, run_key=lineage.run_key(**DECLARED))
    assert record.with_outputs({"runs/x": "dd"}).run_key == record.run_key
    assert record.with_outputs({"runs/x": "dd"}).outputs == {"runs/x": "dd"}


def test_a_record_is_declared_written_and_read_with_the_same_bytes(tmp_path):
    package = tree(tmp_path, TOY)

    def declare():
        return lineage.declare(
            stage="train",
            cell="sample-tiny-0",
            params=DECLARED["params"],
            inputs=DECLARED["inputs"],
            code=Closure(tmp_path / "stages" / "train.py", package),
            profile=DECLARED["profile"],
        )

    record = declare()
    record.with_outputs({"runs/x": "dd"}).write(tmp_path / "one.json")
    declare().with_outputs({"runs/x": "dd"}).write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert str(tmp_path) not in (tmp_path / "one.json").read_text()
    assert Lineage.read(tmp_path / "one.json").run_key == record.run_key

    (tmp_path / "src/toy/layers/conv.py").write_text("import h5py\nmore = 1\n")
    assert declare().run_key != record.run_key
    (tmp_path / "src/toy/unused.py").write_text("elsewhere = 1\n")
    changed = declare()
    (tmp_path / "src/toy/unused.py").write_text("elsewhere = 2\n")
    assert declare().run_key == changed.run_key
