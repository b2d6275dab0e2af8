"""No tree of images is kept: the arrays are the same, and nothing is left of what was unpacked for them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest
import yaml

from checks.support import route
from repix.data import trees
from repix.errors import UserError
from repix.files import digest_tree, read_json

LIMITS = {"max_bytes": 1 << 20, "max_files": 10, "max_ratio": 200.0}


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("set/train/1.txt", "one")
        file.writestr("kept.json", "{}")  # a name that we use, too
    return tmp_path / "set.zip"


def test_what_was_kept_is_unpacked_for_a_while(archive, tmp_path):
    kept, work = tmp_path / "kept", tmp_path / "work" / "set"
    trees.keep_archive(archive, kept, LIMITS)
    assert (kept / "set.zip").samefile(archive)
    with trees.unpacked(kept, work) as tree:
        assert (tree / "set/train/1.txt").read_text() == "one" and (tree / "kept.json").read_text() == "{}"
    assert not work.exists()
    with pytest.raises(KeyError), trees.unpacked(kept, work):
        raise KeyError
    assert not any(work.parent.iterdir())


def test_two_at_once_have_a_tree_each(archive, tmp_path):
    """Experiments of one data set at a time share the work folder, and their archives may differ."""
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("set/train/1.txt", "another")
    work = tmp_path / "work" / "set"
    trees.keep_archive(archive, tmp_path / "kept", LIMITS)
    trees.keep_archive(other, tmp_path / "kept too", LIMITS)
    with trees.unpacked(tmp_path / "kept", work) as tree:
        with trees.unpacked(tmp_path / "kept too", work) as second:
            assert (second / "set/train/1.txt").read_text() == "another"
            assert (tree / "set/train/1.txt").read_text() == "one"
        assert (tree / "set/train/1.txt").read_text() == "one"


def test_what_a_killed_process_left_is_removed(archive, tmp_path):
    kept, work = tmp_path / "kept", tmp_path / "work" / "set"
    trees.keep_archive(archive, kept, LIMITS)
    code = "import os, sys; from pathlib import Path; from repix.data import trees\n"
    code += "with trees.unpacked(Path(sys.argv[1]), Path(sys.argv[2])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, kept, work]).returncode == -9
    assert any(work.parent.iterdir())
    with trees.unpacked(kept, work) as tree:
        assert {path.name for path in work.parent.iterdir()} == {tree.parent.name}
    assert not any(work.parent.iterdir())


DAMAGED = ["", "[]", {"file": "../set.zip"}, {"max_bytes": "many"}, {"max_files": None}]


@pytest.mark.parametrize("damaged", DAMAGED, ids=str)
def test_a_damaged_record_is_one_line(archive, tmp_path, damaged):
    trees.keep_archive(archive, tmp_path / "kept", LIMITS)
    path = tmp_path / "kept" / "kept.json"
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(read_json(path) | damaged))
    with (
        pytest.raises(UserError, match=r"kept\.json: .*`dvc repro` makes it anew"),
        trees.unpacked(tmp_path / "kept", tmp_path / "work"),
    ):
        pass


def test_where_there_are_no_links_it_is_a_copy(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(trees.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    trees.keep_archive(archive, tmp_path / "kept", LIMITS)
    copied = tmp_path / "kept" / "set.zip"
    assert not copied.samefile(archive) and copied.read_bytes() == archive.read_bytes()


def test_the_limits_go_along(archive, tmp_path):
    trees.keep_archive(archive, tmp_path / "kept", LIMITS | {"max_files": 1})
    with pytest.raises(UserError, match="more than 1 files"), trees.unpacked(tmp_path / "kept", tmp_path / "work"):
        pass
    assert not (tmp_path / "work").exists()


def test_a_tree_of_before_and_an_archive_that_is_gone_are_told(archive, tmp_path):
    with pytest.raises(UserError, match=r"no such archive; run the stage"):
        trees.keep_archive(tmp_path / "gone.zip", tmp_path / "kept", LIMITS)
    (tmp_path / "tree" / "train").mkdir(parents=True)
    with (
        pytest.raises(UserError, match="holds a tree of images, and limits.image_tree is false"),  # noqa: RUF043
        trees.unpacked(tmp_path / "tree", tmp_path / "work"),
    ):
        pass


def test_the_stages_make_the_same_arrays_without_a_tree(tmp_path):
    made = []
    for tree in (True, False):
        root = route.copy(tmp_path / str(tree))
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["limits"]["image_tree"] = tree
        route.write_params(root, params)
        route.run(root, "download", "unpack")
        route.run(root, "preprocess")  # which enters a profile, in a process of its own
        made.append(root)
    prepared = [digest_tree(root / "data/prepared/sample") for root in made]
    assert prepared[0] == prepared[1]
    (archive,) = (path for path in (made[1] / "data/raw/sample").iterdir() if path.name != "archive.json")
    kept = made[1] / "data/images/sample"
    assert {path.name for path in kept.iterdir()} == {"kept.json", archive.name}
    assert (kept / archive.name).samefile(archive)
    left = [path for path in (made[1] / ".repix" / "trees").iterdir() if not path.name.endswith(".lock")]
    assert left == []
