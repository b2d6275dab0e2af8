"""`repix doctor` says what is there, names the line that mends what is not, and imports nothing heavy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from repix import cli, machine
from repix.commands import doctor
from repix.errors import UserError
from repix.provenance.git import git
from tests.conftest import ROOT

SECTIONS = ["system", "Python", "packages", "profile", "GPU", "memory", "disk", "git", "DVC"]


def run(capsys, *words: str) -> tuple[int, str]:
    """Return exit code and output of a command of ours."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return ended.value.code, capsys.readouterr().out


def test_every_section_is_there_and_nothing_heavy_is_imported():
    heavy = "{'tensorflow', 'keras', 'torch', 'jax', 'numpy', 'mlflow', 'dvc'}"
    program = (
        "import sys\nfrom repix import cli\n"
        "try:\n    cli.main(['doctor', '--json'])\nexcept SystemExit as end:\n"
        f"    print(sorted({heavy} & sys.modules.keys()), file=sys.stderr)\n    raise\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert list(found) == SECTIONS and done.stderr == "[]\n"
    assert found["profile"] == {"ok": True, "text": "portable"}
    assert metadata.version("dvc") in found["DVC"]["text"]
    assert done.returncode == (0 if all(told["ok"] for told in found.values()) else 1)


@pytest.mark.parametrize("value", ["5", "[jax]"])
def test_a_profile_that_is_no_text_is_one_line(tmp_path, monkeypatch, capsys, value):
    (tmp_path / "params.yaml").write_text(f"run: {{profile: {value}}}\n")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "doctor", "--gpu")[0] == 0
    assert run(capsys, "doctor")[0] == 1


def test_in_a_folder_that_is_no_project_the_mends_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    code, out = run(capsys, "doctor")
    assert code == 1
    red = [line for line in out.splitlines() if line.startswith("!")]
    assert [line.split()[1] for line in red] == ["DVC"]
    assert "repix init FOLDER" in red[0] and "git init" not in out  # at home it would commit all that is there


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without a commit; the test stands in it."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "section", "said"),
    [
        ("params.yaml", "profile", "params.yaml:2: not valid YAML"),
        ("dvc.yaml", "DVC", "dvc.yaml:2: not valid YAML"),
        ("dvc.lock", "DVC", "dvc.lock: not a dvc.lock; restore it with `git checkout HEAD -- dvc.lock`"),
    ],
)
def test_a_file_with_the_markers_of_a_merge_is_red(project, capsys, name, section, said):
    text = (project / name).read_text(encoding="utf-8")
    before = json.loads(run(capsys, "doctor", "--json")[1])
    assert before["profile"]["ok"] and before["DVC"]["ok"]
    (project / name).write_text(f"<<<<<<< HEAD\nx: 1\n=======\n{text}\n>>>>>>> theirs\n", encoding="utf-8")
    assert run(capsys, "doctor", "--gpu")[0] == 0
    code, out = run(capsys, "doctor")
    red = {line.split()[1]: line for line in out.splitlines() if line.startswith("!")}
    assert code == 1 and said in red[section], out


def test_params_that_no_cell_can_run_with_are_red_as_check_tells_them(project, capsys):
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("run:", "run:\n  sedes: [0]", 1), encoding="utf-8")
    _, out = run(capsys, "doctor")
    assert "! profile     params.yaml: run.sedes: unknown key; did you mean 'seeds'?" in out
    (project / "params.yaml").unlink()
    assert "! profile     params.yaml: no such file" in run(capsys, "doctor")[1]


def test_a_git_that_does_not_know_its_user_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    own = ["-c", "user.name=me", "-c", "user.email=me@here"]
    subprocess.run(["git", "-C", str(tmp_path), *own, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
    fine, said = doctor.git(tmp_path)
    assert not fine and "`git config --global user.name NAME && git config --global user.email MAIL`" in said
    for key in ("user.name", "user.email"):
        subprocess.run(["git", "-C", str(tmp_path), "config", key, "me"], check=True)
    assert doctor.git(tmp_path)[0]


def test_of_a_repository_that_git_distrusts_the_folder_is_named_that_git_asks_for(tmp_path, monkeypatch):
    """From below, and by a relative path: neither `.` nor the project's own folder would help."""
    top = tmp_path / "a b"
    project = top / "project"
    project.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(top)], check=True)
    monkeypatch.chdir(project)
    assert machine.git_problem(Path()) is None
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for root in (Path(), project):
        said = machine.git_problem(root)
        assert said.endswith(f"`git config --global --add safe.directory '{top}'`")
        with pytest.raises(UserError, match=r"safe\.directory"):
            git(root, "status")


def test_a_path_that_is_no_text_and_a_bare_repository_are_told_as_they_are(tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    subprocess.run([b"git", b"init", b"--quiet", os.fsencode(odd)], check=True)
    with pytest.raises(UserError, match="git show: "):
        git(odd, "show", "HEAD:./dvc.lock")
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "bare")], check=True)
    assert "work tree" in machine.git_problem(tmp_path / "bare")


def test_packages_other_than_the_constraints_are_named(tmp_path):
    assert doctor.packages(tmp_path)[1].endswith("no constraints.txt to compare with")
    (tmp_path / "constraints.txt").write_text("numpy==0.1\nno-such-package==1\n")
    fine, told = doctor.packages(tmp_path)
    assert fine and f"numpy {metadata.version('numpy')} (not 0.1)" in told and "no-such" not in told


@pytest.mark.parametrize(
    ("names", "installed", "said"),
    [
        (["portable"], set(), "not used yet; `pip install -c constraints.txt"),
        (["portable"], {"jax-cuda12-plugin"}, "`dvc exp run -S run.profile=jax` uses it"),
        (["jax"], {"jax-cuda12-plugin"}, "used under the profile jax"),
        (["jax"], set(), "not used yet"),
        (["fast"], {"nvidia-cublas-cu12"}, "used under the profile fast"),
        (["jax-4"], {"jax-cuda12-plugin"}, "used under the profile jax-4"),
        (["nosuch"], {"jax-cuda12-plugin"}, "not used under nosuch"),
    ],
)
def test_a_gpu_is_named_with_the_line_that_uses_it(monkeypatch, names, installed, said):
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H100"] * 2)
    monkeypatch.setattr(doctor, "_installed", lambda name: name in installed)
    fine, told = doctor.gpu(names)
    assert fine and told.startswith("2 x NVIDIA H100: ") and said in told


def test_gpus_are_found_by_the_driver_or_by_its_program(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "none")
    monkeypatch.setattr(machine, "WSL_NVIDIA_SMI", str(tmp_path / "wsl"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA A10\necho NVIDIA A10\n")
    program.chmod(0o755)
    assert machine.gpus() == ["NVIDIA A10", "NVIDIA A10"]
    program.write_text("#!/bin/sh\necho no devices were found; exit 6\n")
    assert machine.gpus() == []
    program.rename(tmp_path / "wsl")
    (tmp_path / "wsl").write_text("#!/bin/sh\necho NVIDIA RTX 4090\n")
    assert machine.gpus() == ["NVIDIA RTX 4090"]
    (tmp_path / "driver" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "driver" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n")
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "driver")
    assert machine.gpus() == ["NVIDIA H100 80GB HBM3"]


def test_too_little_of_the_machine_is_red(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 2 * 10**9)
    assert doctor.memory()[0] is False
    monkeypatch.setattr(machine, "memory_bytes", lambda: None)
    assert doctor.memory()[0] is True
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    fine, told = doctor.disk(tmp_path)
    assert not fine and f"make room, for example by `{doctor.GC}`" in told
    monkeypatch.setattr(machine, "has_avx2", lambda: False)
    assert doctor.system()[0] is False


def test_no_file_of_ours_names_a_dvc_gc_that_takes_results_of_other_commits():
    names = git(ROOT, "ls-files", "-z", "--", "src", "stages", "project", "docs", "*.md", "Makefile", "*.yaml").decode()
    taught = []
    for name in names.split("\0")[:-1]:
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        taught += [(name, told) for told in re.findall(r"dvc gc(?: +-[\w-]+)+", text)]
    assert {told for _, told in taught} == {doctor.GC}, taught
    assert {name for name, _ in taught} >= {"docs/faq.md", "src/repix/commands/doctor.py"}


def test_the_line_of_make_repro_is_one(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code, out = run(capsys, "doctor", "--gpu")
    assert code == 0 and out.count("\n") == 1 and "GPU" in out
    assert 'repix" doctor --gpu' in (ROOT / "Makefile").read_text()


def test_where_dvc_is_missing_all_else_is_told(monkeypatch, capsys):
    def version(name):
        if name == "dvc":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(doctor.metadata, "version", version)
    code, out = run(capsys, "doctor")
    assert code == 1 and out.count("\n") == len(SECTIONS)
    assert "DVC         not installed: `make setup`" in out
