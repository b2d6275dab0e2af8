"""A result goes through a remote and comes back in a fresh clone, by a folder, SSH and S3.

The full form, with training's outs, evaluation and MLflow, is checks/remotes.py.
"""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from checks import remotes
from checks.support import route
from checks.support.repository import git
from repix.errors import UserError
from repix.files import digest_file
from repix.provenance import lock


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A repository of the first two stages: run, cached, committed."""
    root = route.copy(tmp_path_factory.mktemp("remotes") / "source")
    wiring = yaml.safe_load((root / "dvc.yaml").read_text())
    wiring["stages"] = {kind: wiring["stages"][kind] for kind in ("code", "download", "unpack")}
    (root / "dvc.yaml").write_text(yaml.safe_dump(wiring, sort_keys=False))
    (root / ".gitignore").write_text("/data/\n/lineage/\n/reads/\n__pycache__/\n")
    (root / ".dvcignore").write_text("__pycache__\n")
    git(root, "init", "--quiet")
    remotes.dvc(root, "init", "--quiet")
    remotes.dvc(root, "repro", "--quiet", environment={"REPIX_TRACKING": "off"})
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "result")
    return root


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_pushed_cloned_pulled_and_nothing_to_run(source, tmp_path, kind):
    if why := remotes.missing(kind):
        pytest.skip(why)
    with remotes.serve(kind, tmp_path / kind) as remote:
        fresh, _ = remotes.share(source, remote, tmp_path)
    assert len(lock.all_outs(lock.read(fresh))) == 5
    assert remotes.unequal(fresh) == []
    assert remotes.ran(remotes.dvc(fresh, "repro")) == []
    assert git(fresh, "status", "--porcelain") == ""


def test_what_a_remote_changed_is_not_taken(source, tmp_path):
    """`verify` of the remote's configuration: what comes is hashed before it counts as the out."""
    with remotes.serve("folder", tmp_path / "folder") as remote:
        pusher = remotes.clone(source, tmp_path / "pusher")
        remotes.configure(pusher, remote, remotes.cache_of(source))
        remotes.dvc(pusher, "push")
        outs = lock.all_outs(lock.read(source))
        md5 = outs["lineage/unpack/sample.json"]
        stored = tmp_path / "folder" / "store" / "files" / "md5" / md5[:2] / md5[2:]
        os.chmod(stored, 0o644)
        stored.write_bytes(stored.read_bytes().replace(b"unpack", b"unpick"))
        fresh = remotes.clone(source, tmp_path / "fresh")
        remotes.configure(fresh, remote)
        with pytest.raises(UserError, match=r"lineage/unpack/sample\.json"):
            remotes.dvc(fresh, "pull")
    assert not (fresh / "lineage" / "unpack" / "sample.json").exists()


def test_outs_that_are_links_to_the_cache_are_replaced_and_never_written_into(source, tmp_path):
    """`cache.type hardlink`, as docs/scale.md has it for large sets: the data lies on the disk once."""
    fresh = remotes.clone(source, tmp_path / "linked")
    remotes.dvc(fresh, "cache", "dir", "--local", str(tmp_path / "cache"))
    shutil.copytree(remotes.cache_of(source), tmp_path / "cache")
    remotes.dvc(fresh, "config", "--local", "cache.type", "hardlink,copy")
    remotes.dvc(fresh, "checkout", "--relink")
    cached = {path: digest_file(path) for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    outs = [path for path in (fresh / "data").rglob("*") if path.is_file()]
    assert len(outs) >= 10
    for path in outs:  # the empty and the smallest files too
        assert path.stat().st_nlink > 1 and not path.stat().st_mode & 0o222, path
    assert remotes.ran(remotes.dvc(fresh, "repro")) == []

    off = {"REPIX_TRACKING": "off"}
    said = remotes.dvc(fresh, "repro", "--force", "--single-item", "unpack@sample", environment=off)
    assert remotes.ran(said) == ["unpack@sample"]
    assert remotes.unequal(fresh) == []
    assert {path: digest_file(path) for path in cached} == cached


def test_problems_are_named():
    good = {
        "idle": [],
        "evaluated": ["evaluate@a-b-0"],
        "unequal": [],
        "changed": [],
        "verified": "outs 1: (L0)",
        "runs": {"a-b-0": "r"},
        "scores": 3,
    }
    assert remotes.problems(good, ["a-b-0"]) == []
    for change in (
        {"idle": ["train@a-b-0"]},
        {"evaluated": []},
        {"evaluated": ["train@a-b-0", "evaluate@a-b-0"]},
        {"unequal": ["runs/a-b-0"]},
        {"changed": [" M dvc.lock"]},
        {"verified": "outs 1: not the committed dvc.lock"},
        {"runs": {}},
        {"scores": 0},
    ):
        assert len(remotes.problems(good | change, ["a-b-0"])) == 1, change
