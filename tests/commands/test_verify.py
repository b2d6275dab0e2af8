"""verify names what changed: code, param, data, package, a tracked out; on the light stages."""

from __future__ import annotations

import json
import os
import shutil
import tarfile

import pytest
import yaml

from checks.support import route
from checks.support.repository import git
from repix import cli
from repix.commands import verify
from repix.errors import UserError
from repix.provenance import lock, pipeline
from repix.provenance import verify as rebuilding
from repix.provenance.checkout import checkout
from repix.provenance.git import changes
from repix.provenance.lineage import Lineage


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-qm", "state")


def run_stages(root):
    route.run(root, "download", "unpack")
    route.run(root, "preprocess")  # in a process of its own: it enters a profile before NumPy is imported
    route.locked(root)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A repository of the first three stages, run and committed."""
    root = route.copy(tmp_path_factory.mktemp("verify") / "clone")
    wiring = yaml.safe_load((root / "dvc.yaml").read_text())
    wiring["stages"] = {kind: wiring["stages"][kind] for kind in ("download", "unpack", "preprocess")}
    (root / "dvc.yaml").write_text(yaml.safe_dump(wiring, sort_keys=False))
    (root / ".gitignore").write_text("/data/\n/lineage/\n/reads/\n__pycache__/\n")
    run_stages(root)
    git(root, "init", "-q")
    commit(root)
    return root


@pytest.fixture
def clone(recorded, tmp_path, monkeypatch):
    root = tmp_path / "a clone"
    shutil.copytree(recorded, root)
    monkeypatch.chdir(root)
    return root


def run(capsys, *arguments):
    """Run `repix verify`; return exit code and what it said."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["verify", *arguments])
    return exit_.value.code, capsys.readouterr().out


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_clean_commit_is_rebuilt_bit_for_bit_without_the_workspace(clone, capsys):
    shutil.rmtree(clone / "data")
    code, said = run(capsys, "--json")
    assert (code, json.loads(said)["level"]) == (0, "L0")
    assert not (clone / "data").exists()


def test_uncommitted_changes_are_said_and_not_verified(clone, capsys):
    (clone / "params.yaml").write_text("broken: [")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["verify", "--stage", "download"])
    said = capsys.readouterr()
    assert exit_.value.code == 0 and "uncommitted changes (params.yaml)" in said.err


def test_a_name_that_is_no_utf8_is_a_name(clone, capsys):
    os.close(os.open(os.fsencode(clone) + b"/caf\xe9.txt", os.O_CREAT))
    assert changes(clone) == ["caf\udce9.txt"]
    with checkout(clone, None) as tree:
        assert b"caf\xe9.txt" in os.listdir(os.fsencode(tree))


def test_a_changed_line_of_code_is_named(clone, capsys):
    file = clone / "src/repix/data/archives.py"
    replace(file, '"""', '"""Changed. ')
    assert run(capsys, "--dirty", "--stage", "unpack")[0] == 0  # words compute nothing
    file.write_text(f"{file.read_text()}\nUNUSED = 1\n")
    code, said = run(capsys, "--dirty", "--stage", "unpack")
    assert code == verify.OTHER_LINEAGE
    assert "first difference: download@sample: code src/repix/data/archives.py: " in said


def test_a_changed_param_is_named(clone, capsys):
    replace(clone / "params.yaml", "load_size: 18", "load_size: 17")
    commit(clone)
    code, said = run(capsys)
    assert code == 6
    assert "first difference: preprocess@sample: param datasets.sample.images.load_size: 18 -> 17" in said
    assert "data/prepared/sample/" in said.splitlines()[1]


def test_another_archive_behind_the_same_url_is_named(clone, capsys, tmp_path):
    archive = next((clone / "data/raw/sample").glob("*.tar"))
    moved = tmp_path / archive.name
    shutil.copy(archive, moved)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["datasets"]["sample"]["archive"]["urls"] = [moved.as_uri()]
    route.write_params(clone, params)
    run_stages(clone)
    commit(clone)
    with pytest.MonkeyPatch.context() as patch:  # one pixel of the data
        patch.chdir(tmp_path)
        shutil.unpack_archive(moved, "opened")
        from repix.data.images import decode, write

        image = sorted((tmp_path / "opened").rglob("*.png"))[0]
        pixels = decode(image).pixels.copy()
        pixels[0, 0, 0] ^= 1
        write(image, pixels)
        shutil.make_archive(str(moved).removesuffix(".tar"), "tar", "opened")
    code, said = run(capsys)
    assert code == 6
    assert "first difference: download@sample: what its urls lead to is another archive" in said


def test_another_package_is_named_from_the_lineage(clone, capsys):
    path = clone / "lineage/preprocess/sample.json"
    record = Lineage.read(path)
    record.model_copy(update={"environment": record.environment | {"pillow": "1.0"}}).write(path)
    route.locked(clone)
    commit(clone)
    code, said = run(capsys)
    assert code == verify.OTHER_LINEAGE
    assert "first difference: preprocess@sample: package pillow: 1.0 -> " in said


def test_another_thread_count_is_named_from_the_lineage(clone):
    record = Lineage.read(clone / "lineage/preprocess/sample.json")
    other = record.model_copy(update={"profile": record.profile | {"threads": 4}})
    assert [str(d) for d in rebuilding.lineage_differences("s", record, other)] == ["s: profile threads: 2 -> 4"]


def test_a_changed_byte_of_a_tracked_out_is_named(clone, capsys):
    path = clone / "data/prepared/sample/test-source.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, said = run(capsys)
    assert code == verify.CHANGED_SINCE
    assert said.splitlines()[1:] == ["data/prepared/sample/test-source.npy"]


def test_a_file_that_is_gone_is_told_and_one_too_many_is_a_change(clone, capsys):
    (clone / "data/prepared/sample/test-source.npy").unlink()
    with pytest.raises(SystemExit) as exit_:
        cli.main(["verify"])
    assert not exit_.value.code
    assert "not in the workspace: data/prepared/sample/test-source.npy (`dvc checkout`" in capsys.readouterr().err
    (clone / "data/prepared/sample/own.npy").write_bytes(b"mine")
    code, said = run(capsys)
    assert code == verify.CHANGED_SINCE
    assert said.splitlines()[1:] == ["data/prepared/sample/own.npy"]


def test_what_git_holds_is_brought_back_by_git(clone, capsys):
    wiring = yaml.safe_load((clone / "dvc.yaml").read_text())
    outs = wiring["stages"]["preprocess"]["outs"]
    outs[0] = {outs[0]: {"cache": False}}
    (clone / "dvc.yaml").write_text(yaml.safe_dump(wiring, sort_keys=False))
    (clone / ".gitignore").write_text("/data/raw\n/data/images\n/lineage/\n/reads/\n__pycache__/\n")
    commit(clone)
    for path in ("data/prepared/sample/test-source.npy", "data/images/sample/own.txt"):
        (clone / path).write_text("mine")
    code, said = run(capsys)
    assert code == verify.CHANGED_SINCE
    dvc, image, git_, array = said.splitlines()
    assert "(`dvc checkout --force` mends)" in dvc and image == "data/images/sample/own.txt"
    assert f"(`git checkout HEAD -- {array}` mends)" in git_ and array == "data/prepared/sample/test-source.npy"


def test_the_archive_of_a_relative_address_is_found_from_the_clean_tree(clone, capsys):
    archive = next((clone / "data/raw/sample").glob("*.tar"))
    shutil.copy(archive, clone / "my-pairs.tar")
    (clone / ".gitignore").write_text((clone / ".gitignore").read_text() + "*.tar\n")
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["datasets"]["sample"]["archive"]["urls"] = ["file:my-pairs.tar"]
    route.write_params(clone, params)
    run_stages(clone)
    commit(clone)
    assert run(capsys, "--stage", "unpack")[0] == 0


def test_an_edited_hash_in_the_lock_is_not_called_chance(clone, capsys):
    entry = next(out for out in yaml.safe_load((clone / "dvc.lock").read_text())["stages"]["preprocess@sample"]["outs"])
    assert entry["path"] == "data/prepared/sample"
    replace(clone / "dvc.lock", entry["md5"], "0" * 32 + ".dir")
    code, said = run(capsys, "--lock-only")
    assert code == 6 and "lineage/preprocess/sample.json is the same in both" in said and "edited by hand" in said
    commit(clone)
    code, said = run(capsys)
    assert code == 6 and "dvc.lock was edited" in said and "not deterministic" not in said
    assert "first difference: preprocess@sample: dvc.lock names other bytes for data/prepared/sample than " in said


def test_other_packages_than_those_of_the_outs_are_named(clone, capsys):
    path = clone / "lineage/preprocess/sample.json"
    record = Lineage.read(path)
    assert rebuilding.other_packages(clone) is None
    record.model_copy(update={"environment": record.environment | {"pillow": "1.0"}}).write(path)
    route.locked(clone)
    commit(clone)
    code, said = run(capsys, "--lock-only")
    assert code == 0 and said.count("\n") == 2
    assert "packages: pillow 1.0 -> " in said and "(first preprocess@sample)" in said and "dvc repro --force" in said


def test_from_a_folder_below_the_root(clone, capsys, monkeypatch):
    monkeypatch.chdir(clone / "data/raw")
    assert run(capsys, "--lock-only")[0] == 0
    assert run(capsys, "--stage", "download")[0] == 0


def test_a_lock_that_lost_a_stage_is_not_the_committed_one(clone, capsys):
    """Cut off behind its first stages, it names no other bytes, and not all of them."""
    text = (clone / "dvc.lock").read_text()
    at = text.index("  preprocess@sample:")
    (clone / "dvc.lock").write_text(text[:at])
    code, said = run(capsys, "--lock-only")
    assert code == 6 and "preprocess@sample of the committed dvc.lock" in said and "is missing" in said


@pytest.mark.parametrize("arguments", [["--lock-only"], []])
def test_a_lock_that_is_no_text_is_one_line(clone, capsys, arguments):
    (clone / "dvc.lock").write_bytes(b"schema: \xff\xfe")
    commit(clone)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["verify", *arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 1 and "dvc.lock: not a dvc.lock; restore it" in error and error.count("\n") == 1


def test_mistakes_are_one_line(clone, capsys):
    for arguments, said in (
        (["--rev", "none-such"], "none-such: git knows no commit of this name"),
        (["--stage", "trian"], "no stage 'trian'; there are download"),
        (["--stage", "code"], "no stage 'code'; there are download"),
        (["sample-x-9"], "no cell 'sample-x-9'"),
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["verify", *arguments])
        error = capsys.readouterr().err
        assert exit_.value.code == 1 and said in error and error.count("\n") == 1


def test_the_lock_line_says_same_or_what_differs_first(clone, capsys):
    digest = lock.digest(lock.read(clone))
    code, said = run(capsys, "--lock-only")
    assert code == 0
    same = "your run made the same bytes as the commit, for every out (their hashes in dvc.lock are equal)"
    assert said == f"dvc.lock {digest}: {same}\n"
    made = {out.split("/")[0] for stage in pipeline.stages(clone) for out in stage.outs if out not in stage.in_git}
    there = [clone / name for name in made if (clone / name).exists()]
    for folder in there:
        folder.rename(clone.parent / f"{folder.name}-outs")
    code, said = run(capsys, "--lock-only")
    nothing = "the committed one; none of its outs is here: `dvc repro` or `dvc pull` brings them"
    assert (code, said) == (0, f"dvc.lock {digest}: {nothing}\n")
    for folder in there:
        (clone.parent / f"{folder.name}-outs").rename(folder)

    record = clone / "lineage" / "download" / "sample.json"
    kept = record.read_text()
    replace(record, '"profile"', '"profile" ')  # as another Python would leave another record of the same outs
    route.locked(clone)
    code, said = run(capsys, "--lock-only")
    assert code == 7 and said.count("\n") == 1
    assert f"the same bytes as the committed one ({digest}) for every out but lineage records; first download@" in said
    record.write_text(kept)

    replace(clone / "params.yaml", "load_size: 18", "load_size: 17")
    route.locked(route.run(clone, "preprocess"))
    code, said = run(capsys, "--lock-only")
    assert code == 6 and said.count("\n") == 1
    assert f"not the committed dvc.lock ({digest}); first preprocess@sample: data/prepared/sample; " in said
    assert "param datasets.sample.images.load_size: 18 -> 17" in said

    git(clone, "rm", "-q", "--cached", "dvc.lock")
    git(clone, "commit", "-qm", "none")
    code, said = run(capsys, "--lock-only")
    assert code == 1 and "no dvc.lock is committed" in said


def test_a_cell_needs_its_own_stages_and_those_above():
    found = pipeline.stages(route.ROOT)
    names = [stage.kind for stage in verify.chosen(found, None, "train")]
    assert names == ["download", "unpack", "preprocess", "start", "train"]
    assert [s.kind for s in verify.chosen(found, route.CELL, None)] == [s.kind for s in found]


@pytest.mark.parametrize("filters", [True, False])
def test_a_commit_is_written_whatever_pythons_tarfile_has_and_nothing_through_a_link(tmp_path, monkeypatch, filters):
    from repix.provenance import checkout

    if not filters:  # as before 3.11.4
        monkeypatch.delattr(tarfile, "tar_filter", raising=False)
        whole = tarfile.TarFile.extractall
        monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path: whole(self, path))
    link, below = tarfile.TarInfo("out"), tarfile.TarInfo("out/file")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    for name, members in (("sound", [link]), ("crafted", [link, below])):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for member in members:
                archive.addfile(member)
    with tarfile.open(tmp_path / "sound.tar") as archive:
        checkout._extract(archive, tmp_path / "tree")
    assert (tmp_path / "tree" / "out").is_symlink()
    with tarfile.open(tmp_path / "crafted.tar") as archive, pytest.raises(UserError, match="'out/file' below a link"):
        checkout._extract(archive, tmp_path / "tree2")
    assert not list((tmp_path / "elsewhere").iterdir())
