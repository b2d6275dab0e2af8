"""What every stage does before and after its work: one-line errors, exit codes, and records that know no machine."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml

from checks.harness import options
from repix import cli, paths, processes, stage, tables
from repix.cells import Cell
from repix.config import reader
from repix.config.images import Images
from repix.errors import UserError
from repix.files import digest_tree
from repix.provenance import lock
from repix.provenance.code import CodeRecord
from tests.conftest import ROOT


def guarded(function, capsys) -> tuple[int, str]:
    """Return exit code and standard error of a guarded function."""
    with pytest.raises(SystemExit) as caught:
        stage.guard(function)
    return caught.value.code, capsys.readouterr().err


def raising(error: BaseException):
    def function():
        raise error

    return function


def test_what_the_system_refuses_is_one_short_line_with_its_own_mend(capsys):
    mends = {errno.EROFS: "work in a folder that can be written", errno.ENAMETOOLONG: "choose a shorter name"}
    mends |= dict.fromkeys((errno.EACCES, errno.EPERM), "let this user read and write there")
    for number, mend in (mends | {errno.EMFILE: "`ulimit -n 4096`"}).items():
        said = os.strerror(number)
        code, line = guarded(raising(OSError(number, said, "x" * 5000)), capsys)
        assert code == 1 and f": {said}; {mend}" in line and line.count("\n") == 1 and len(line) < 400
        assert "make room" not in line


def test_a_users_mistake_is_one_line_and_its_exit_code(capsys):
    class OtherError(UserError):
        exit_code = 7

    assert guarded(raising(UserError("params.yaml: x: wrong")), capsys) == (1, "repix: params.yaml: x: wrong\n")
    assert guarded(raising(OtherError("other")), capsys) == (7, "repix: other\n")


def test_what_a_terminal_would_obey_is_spelt_out(tmp_path, monkeypatch, capsys):
    name = "a\x1b[2J\x9b1m\u202eb\udcff\nrepix: all is well é.png"
    shown = "a\\x1b[2J\\x9b1m\\u202eb\\udcff\\nrepix: all is well é.png"
    assert guarded(raising(UserError(f"{name}:", "  bad")), capsys) == (1, f"repix: {shown}:\n  bad\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    os.symlink("nowhere", tmp_path / "x" / name)
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["add", "x", "--dry-run"])
    assert (
        capsys.readouterr().err
        == f"repix add: x/{shown}: a link to nothing; remove it, or bring back what it leads to\n"
    )
    assert lock.shown("\x1b[2Jx") == "\\x1b[2Jx"
    assert tables.aligned([("a\nb\x1b", "c")]) == ["a\\nb\\x1b  c"]


def test_a_full_disk_is_one_line_and_other_errors_keep_their_traceback(capsys):
    code, said = guarded(raising(OSError(errno.ENOSPC, "No space left on device", "data/x.npy")), capsys)
    assert code == 1 and said.startswith("repix: data/x.npy: No space left on device; make room")
    assert said.count("\n") == 1
    for error in (ValueError("ours"), OSError(errno.EIO, "ours")):
        with pytest.raises(type(error), match="ours"):
            stage.guard(raising(error))


def test_a_library_that_is_stopped_while_it_is_imported_is_no_mistake(capsys, monkeypatch):
    def imported():
        try:
            raise processes.Terminated(signal.SIGTERM)
        except KeyboardInterrupt as stopped:
            raise ImportError("initialization failed") from stopped

    assert guarded(imported, capsys) == (143, "repix: stopped by SIGTERM; run the same command to go on\n")
    monkeypatch.setattr(cli, "_run", lambda *_: imported())
    with pytest.raises(SystemExit) as ended:
        cli.main(["version"])
    assert ended.value.code == 143 and capsys.readouterr().err == ""
    code, said = guarded(lambda: cleaning_up(imported), capsys)
    assert code == 1 and said.startswith("repix: No space left on device")


def cleaning_up(stopped):
    try:
        stopped()
    except ImportError:
        raise OSError(errno.ENOSPC, "No space left on device") from None


def test_ctrl_c_and_sigterm_unwind_and_have_codes_of_their_own(capsys, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    assert guarded(raising(KeyboardInterrupt()), capsys) == (
        130,
        "repix: interrupted; run the same command to go on\n",
    )
    cleaned = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    code, said = guarded(work, capsys)
    assert code == 143 and said == "repix: stopped by SIGTERM; run the same command to go on\n" and cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_succeeds_says_nothing(capsys):
    stage.guard(lambda: None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("sampel", "pix2pix", "0"), "params.yaml: no datasets.sampel; did you mean 'sample'?; datasets has "),
        (("sample", "pix2pox", "0"), "params.yaml: no models.pix2pox; did you mean 'pix2pix'?; models has "),
        (("sample", "pix2pix", "one"), "'one' is not a seed: seeds are whole numbers from 0 to 2147483647"),
        (("sample", "pix2pix", "-3"), "'-3' is not a seed"),
        (("../sample", "pix2pix", "0"), "'../sample' is not a name"),
    ],
)
def test_a_wrong_cell_is_said_in_one_line_before_anything_heavy_is_imported(names, said, capsys, monkeypatch, tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *options(*names)])
    monkeypatch.setattr(stage.profile, "enter", lambda name: None)
    monkeypatch.setattr(stage, "import_keras", lambda: pytest.fail("Keras was imported first"))
    with pytest.raises(SystemExit) as caught:
        stage.run(lambda cell: pytest.fail("the stage ran"), "doc", "dataset", "model", "seed")
    message = capsys.readouterr().err
    assert caught.value.code == 1 and message.startswith(f"repix: {said}") and message.count("\n") == 1


def test_a_model_without_a_profile_is_refused_before_its_training_and_not_after(capsys, monkeypatch, tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("    profile: fast\n", ""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *options("facades", "pix2pix", "0")])
    monkeypatch.setattr(stage.profile, "enter", lambda name: pytest.fail("the stage went on"))
    with pytest.raises(SystemExit):
        stage.run(lambda cell: None, "doc", "dataset", "model", "seed", trains=True)
    assert capsys.readouterr().err == (
        "repix: params.yaml: models.pix2pix.profile: missing; add `profile: fast` (or portable, jax)\n"
    )


def test_a_right_cell_reaches_the_stage(monkeypatch, tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *options("sample", "pix2pix_small", "3")])
    monkeypatch.setattr(stage.profile, "enter", lambda name: name)
    monkeypatch.setattr(stage, "import_keras", lambda: None)
    got = []
    stage.run(got.append, "doc", "dataset", "model", "seed")
    assert got == [Cell("sample", "pix2pix_small", 3)]


def test_a_missing_input_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/prepared/x: not there; `dvc repro` makes it"):
        stage.LineageRecord("preprocess", "x", {}, [paths.PREPARED / "x"])


def standing_record(monkeypatch, tmp_path) -> stage.LineageRecord:
    """Return the record of a stage that has begun: of an input, in.txt, and a parameter, datasets.sample.images."""
    tmp_path.mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "in.txt").write_text("one")
    monkeypatch.setattr(sys, "argv", [str(ROOT / "stages/preprocess.py")])
    monkeypatch.setattr(stage, "WORK", tmp_path / ".repix")
    params = {"datasets.sample.images": reader.read("datasets.sample.images", Images)}
    return stage.LineageRecord("preprocess", "sample", params, [Path("in.txt")])


def test_a_result_is_not_recorded_under_what_changed_while_it_was_made(monkeypatch, tmp_path):
    record = standing_record(monkeypatch, tmp_path)
    params = tmp_path / "params.yaml"
    text = params.read_text()
    params.write_text("# another remark\n" + text)  # of no value that the stage has read
    record.write(Path("in.txt"))
    assert record.path.exists()
    tree = yaml.safe_load(text)
    tree["datasets"]["sample"]["images"] = dict(record.declared.params["datasets.sample.images"])  # defaults spelt out
    params.write_text(yaml.safe_dump(tree))
    record.write(Path("in.txt"))

    (tmp_path / "in.txt").write_text("two")
    with pytest.raises(UserError, match=r"^in\.txt: changed while the stage ran"):
        record.write()
    (tmp_path / "in.txt").write_text("one")

    tree = yaml.safe_load(text)
    tree["datasets"]["sample"]["images"]["load_size"] = 99
    params.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"^params\.yaml: datasets\.sample\.images: changed while the stage ran"):
        record.write()
    params.write_text(text)
    record.write()


def test_an_input_is_read_again_only_after_a_change(monkeypatch, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "in.txt").write_text("one")
    (folder / "nowhere").symlink_to("gone")
    read = []
    monkeypatch.setattr(stage, "digest_tree", lambda path, of: read.append(path) or digest_tree(path, of))
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "stages/preprocess.py")])
    record = stage.LineageRecord("preprocess", "sample", {}, [Path("data")])
    record.check()
    record.write()
    assert read == [Path("data")]
    was = (folder / "in.txt").stat()
    (folder / "in.txt").write_text("two")
    os.utime(folder / "in.txt", ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(UserError, match=r"^data: changed while the stage ran"):
        record.check()


def test_of_a_group_that_a_stage_reads_in_part_that_part_counts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    params, text = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    params.write_text(text)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "stages/download.py")])
    entry = yaml.safe_load(text)["datasets"]["sample"]["archive"]
    given = {"datasets.sample.archive": {"urls": entry["urls"], "sha256": entry.get("sha256")}}
    record = stage.LineageRecord("download", "sample", given, [])
    for key, refused in (("licence", False), ("urls", True)):
        tree = yaml.safe_load(text)
        tree["datasets"]["sample"]["archive"][key] = ["other"] if refused else "other"
        params.write_text(yaml.safe_dump(tree))
        with pytest.raises(UserError, match="changed while") if refused else nullcontext():
            record.check()


def test_a_stage_of_dvcs_refuses_to_run_other_code_than_dvc_repro_began_with(monkeypatch, tmp_path):
    ran = standing_record(monkeypatch, tmp_path).declared.code
    recorded = CodeRecord(stage="preprocess", model=None, code=ran)
    recorded.write(tmp_path / "code/preprocess/all.json")
    monkeypatch.setenv("DVC_STAGE", "preprocess@sample")
    standing_record(monkeypatch, tmp_path)
    edited = recorded.model_copy(update={"code": ran | {"src/repix/stage.py": "before"}})
    edited.write(tmp_path / "code/preprocess/all.json")
    with pytest.raises(UserError, match=r"^src/repix/stage\.py: changed since `dvc repro` looked at the code"):
        standing_record(monkeypatch, tmp_path)
    monkeypatch.delenv("DVC_STAGE")  # by hand: nothing is written into dvc.lock
    standing_record(monkeypatch, tmp_path)


def test_what_a_module_computes_is_kept_apart_by_code_packages_and_profile(monkeypatch, tmp_path):
    record, module = standing_record(monkeypatch, tmp_path / "work"), "repix.evaluation.features"
    first = record.memo(module)
    assert record.memo(module) == first and record.memo("repix.evaluation.score").parent != first.parent
    with monkeypatch.context() as patch:
        patch.setattr(stage, "environment", lambda packages: dict.fromkeys(packages, "another"))
        assert record.memo(module) != first
    with monkeypatch.context() as patch:
        patch.setattr(record, "declared", record.declared.model_copy(update={"profile": {"name": "another"}}))
        assert record.memo(module) != first
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(stage, "_repository", lambda: tmp_path)
    assert record.memo(module) == first
    edited = tmp_path / "src/repix/evaluation/features.py"
    edited.write_text(edited.read_text() + "\nX = 1\n")
    assert record.memo(module) != first


def archive(path) -> None:
    """Write a tiny aligned set as .tar.gz."""
    from PIL import Image

    with tarfile.open(path, "w:gz") as tar:
        for split in ("train", "test"):
            for number in range(2):
                pixels = np.random.default_rng(number).integers(0, 256, (8, 16, 3), np.uint8)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                entry = tarfile.TarInfo(f"tiny/{split}/{number}.png")
                entry.size = stream.tell()
                stream.seek(0)
                tar.addfile(entry, stream)


def repository(folder, url: str):
    """Copy what stages need to a folder, with one tiny data set."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    entry = {
        "archive": {"urls": [url], "sha256": None},
        "images": {"direction": "BtoA", "load_size": 9, "crop_size": 8},
    }
    params["datasets"] = {"tiny": entry}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return folder


def play(folder, name: str, *names: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("REPIX")}
    return subprocess.run(
        [sys.executable, f"stages/{name}.py", *options(*names)], cwd=folder, env=clean, capture_output=True, text=True
    )


def test_records_and_outs_are_the_same_wherever_the_repository_lies(tmp_path):
    archive(tmp_path / "tiny.tar.gz")
    trees = []
    for place in (tmp_path / "a", tmp_path / "another place" / "deep"):
        folder = repository(place, (tmp_path / "tiny.tar.gz").as_uri())
        for name in ("download", "unpack", "preprocess"):
            ended = play(folder, name, "tiny")
            assert ended.returncode == 0, ended.stderr
        files = [path for root in ("lineage", "data") for path in sorted((folder / root).rglob("*")) if path.is_file()]
        trees.append({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
    assert trees[0] == trees[1]
    records = [name for name in trees[0] if name.startswith("lineage/")]
    assert records == [f"lineage/{name}/tiny.json" for name in ("download", "preprocess", "unpack")]
    for name in records:
        record = json.loads(trees[0][name])
        assert record["outputs"] and record["run_key"] and f"stages/{record['stage']}.py" in record["code"]
        # The archive's own address is a parameter, and the only path there is.
        said = trees[0][name].decode().replace((tmp_path / "tiny.tar.gz").as_uri(), "")
        assert str(tmp_path) not in said and os.uname().nodename not in said
    assert json.loads(trees[0]["lineage/preprocess/tiny.json"])["profile"]["name"] == "portable"
    assert json.loads(trees[0]["lineage/unpack/tiny.json"])["profile"] == {}
    # What an entry leaves at its default is recorded too, so that another default is another run.
    images = Images(direction="BtoA", load_size=9, crop_size=8).model_dump(mode="json")
    assert json.loads(trees[0]["lineage/preprocess/tiny.json"])["params"]["datasets.tiny.images"] == images

    # A stage that is asked for what is not there ends in one line, from a real script too.
    for name, names in (("preprocess", ["tinny"]), ("train", ["tiny", "pix2pux", "0"])):
        ended = play(folder, name, *names)
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1
        assert ended.stderr.startswith("repix: params.yaml: no ") and "did you mean" in ended.stderr


def test_too_little_memory_or_disk_is_one_line_in_the_words_of_any_library(capsys):
    def imported():
        try:
            raise ImportError("libtensorflow_cc.so.2: failed to map segment from shared object")
        except ImportError:
            raise RuntimeError("could not import anything") from None

    class OpError(Exception):
        """As TensorFlow's."""

    for function, said in (
        (raising(MemoryError()), "not enough memory"),
        (raising(np._core._exceptions._ArrayMemoryError((4, 4), np.dtype("f4"))), "not enough memory"),
        (raising(OpError("OOM when allocating tensor with shape[8,64]")), "not enough memory"),
        (raising(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), "not enough memory"),
        (imported, "not enough memory"),
        (raising(OpError("{{node}} out/variables/part-0; File too large")), "File too large; make room"),
        (raising(OSError("write failed: errno = 28, error message = 'No space left on device'")), "No space left"),
    ):
        code, line = guarded(function, capsys)
        assert code == 1 and line.startswith(f"repix: {said}") and line.count("\n") == 1


def test_a_limit_on_memory_is_one_line_at_the_end_and_no_traceback():
    """`ulimit -v` of half a GiB, which TensorFlow's library does not fit into."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
from repix import profile, stage
from repix.libraries import import_keras
profile.apply("fast")
stage.guard(import_keras)
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("repix: not enough memory; give it more")


def test_a_command_without_memory_is_one_line_although_nothing_can_be_imported_any_more():
    code = """
import sys
from repix import cli
from repix.commands import results

class Full:
    def find_spec(self, *_):
        raise MemoryError

def main(arguments):
    sys.meta_path.insert(0, Full())
    raise MemoryError

results.main = main
cli.main(["results"])
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("repix results: not enough memory; give it more") and ended.stderr.count("\n") == 1


def test_a_python_without_the_packages_is_one_line():
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "stages" / "code_records.py")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"repix: .* has no \w+: activate the environment first, by \. \.venv/bin/activate\n", done.stderr
    )
