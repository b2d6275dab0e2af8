"""The comparison of rows on different CPUs: what moved is named, and the profile's settings win."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checks import portable
from repix.errors import UserError
from tests.conftest import ROOT


def row(condition, **parts):
    cpu = {"profile": "portable", "system": "pix2pix", "condition": condition, "cpu": "a CPU", "seconds": 1}
    return cpu | {"parts": {"weights": "a" * 64, "scores": "b" * 64} | parts}


def test_a_row_that_moved_is_named_and_turns_the_verdict():
    shown, equal = portable.tables([row("qemu-EPYC"), row("native")])
    assert equal and shown.endswith("all equal")
    shown, equal = portable.tables([row("native"), row("qemu-EPYC", scores="c" * 64)])
    assert not equal
    assert shown.endswith("pix2pix, qemu-EPYC: 1 of 2 moved: scores")
    assert [line.split("|")[-3].strip() for line in shown.splitlines()[4:6]] == ["yes", "no"]


def test_a_control_row_moves_without_turning_the_verdict():
    shown, equal = portable.tables([row("native"), row("control-openblas", scores="c" * 64)])
    assert equal and "control-openblas: 1 of 2 moved" in shown


def test_a_control_that_moves_nothing_turns_the_verdict():
    shown, equal = portable.tables([row("native"), row("control-openblas")])
    assert not equal and "control-openblas: moved nothing, so that equal rows say nothing" in shown


def test_the_fast_profile_may_move():
    rows = [found | {"profile": "fast"} for found in (row("native"), row("no-avx512", weights="c" * 64))]
    assert portable.tables(rows)[1]


def test_the_profile_wins_over_the_machine_and_forcing_over_the_profile():
    for name, core, isa in (
        ("no-avx512", "Haswell", "AVX2"),
        ("openblas-sandybridge", "Haswell", "AVX512_CORE"),
        ("control-openblas", "Sandybridge", "AVX512_CORE"),
    ):
        found = portable.environment("portable", portable.CONDITIONS[name])
        assert (found["OPENBLAS_CORETYPE"], found["ONEDNN_MAX_CPU_ISA"]) == (core, isa), name
    found = portable.environment("fast", portable.CONDITIONS["openblas-sandybridge"])
    assert found["OPENBLAS_CORETYPE"] == "Sandybridge"


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="reads CPUID by machine code")
def test_the_cpu_says_its_own_name():
    assert portable.cpuid(0)[4:16] in (b"AuthcAMDenti", b"GenuntelineI")  # EBX, ECX, EDX of the vendor
    assert "emulated" not in portable.cpu_name() and len(portable.cpu_name()) > 3
    held = Path("/sys/devices/system/cpu/cpu0/cache/index0/size")
    assert portable.first_cache() >= 16 and portable.cpu_name().endswith(f", {portable.first_cache()} KB")
    assert not held.exists() or held.read_text().strip() == f"{portable.first_cache()}K"


@pytest.mark.skipif(not shutil.which(portable.QEMU), reason=f"{portable.QEMU} is not installed")
@pytest.mark.parametrize("cpu", ["Haswell", "EPYC"])
def test_an_emulator_tells_of_the_caches_that_it_is_given(cpu, tmp_path):
    name = f"qemu-{cpu}-48K"
    code = "from checks import portable; print(portable.cpu_name())"
    said = {}
    for condition in (f"qemu-{cpu}", name):
        emulator = portable.emulator_for(portable.CONDITIONS[condition], tmp_path)
        run = subprocess.run(
            [emulator, "-cpu", cpu, sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        said[condition] = run.stdout.strip()
    assert said[name].endswith("emulated, 48 KB") and said[f"qemu-{cpu}"].endswith("emulated, 32 KB")


def test_an_emulator_with_another_table_is_left_out():
    assert portable.with_larger_caches(b"no such table") is None


@pytest.mark.parametrize(("end", "runs"), [("kill -SEGV $$", 2), ("exit 3", 1)])
def test_an_emulator_that_crashes_gets_one_more_try(end, runs, tmp_path, monkeypatch):
    count, emulator = tmp_path / "count", tmp_path / "emulator"
    emulator.write_text(f"#!/bin/sh\necho run >> {count}\n{end}\n")
    emulator.chmod(0o755)
    monkeypatch.setattr(portable, "QEMU", str(emulator))
    with pytest.raises(SystemExit, match="portable other qemu-Haswell: exit code"):
        portable.row("other", "portable", "qemu-Haswell")
    assert count.read_text().split() == ["run"] * runs


def test_a_row_starts_without_a_users_switches(tmp_path, monkeypatch):
    # A stage starts itself again without them, and the emulator is left.
    emulator, seen = tmp_path / "emulator", tmp_path / "seen"
    emulator.write_text(f"#!/bin/sh\nenv > {seen}\nexit 3\n")
    emulator.chmod(0o755)
    monkeypatch.setattr(portable, "QEMU", str(emulator))
    for name in ("OPENBLAS_L2_SIZE", "OPENBLAS_CORETYPE", "TF_CLI_CONFIG_FILE"):
        monkeypatch.setenv(name, "Zen")
    with pytest.raises(SystemExit, match="exit code 3"):
        portable.row("other", "portable", "qemu-Haswell")
    found = [line for line in seen.read_text().splitlines() if line.startswith(("OPENBLAS_", "TF_CLI_"))]
    assert sorted(found) == ["OPENBLAS_CORETYPE=Haswell", "OPENBLAS_NUM_THREADS=1", "TF_CLI_CONFIG_FILE=Zen"]


def test_a_file_of_rows_keeps_those_of_this_code_and_takes_those_of_others_meanwhile(tmp_path, capsys):
    path = tmp_path / "below" / "rows.json"
    assert portable.start_file(path, "now", again=True) == []
    ours, old = row("native") | {"code": "now"}, row("one-core") | {"code": "before"}
    for found in (ours, old):
        portable.add_row(path, found)
    assert portable.read_rows(path) == [ours, old]
    assert portable.start_file(path, "now", again=True) == [ours] == portable.read_rows(path)
    assert "1 rows of other code are run again" in capsys.readouterr().err
    portable.add_row(path, row("qemu-EPYC") | {"code": "now"})  # of another process
    portable.add_row(path, ours | {"seconds": 2})
    assert [(one["condition"], one["seconds"]) for one in portable.read_rows(path)] == [("qemu-EPYC", 1), ("native", 2)]
    assert portable.start_file(path, "now", again=False) == []


@pytest.mark.parametrize(
    "said", ["{bad", '{"a": 1}', "[1, 2]", '[{"profile": "nosuch"}]', '[{"profile": "portable", "system": "other"}]']
)
@pytest.mark.parametrize("again", [["--again"], []])
def test_what_is_no_file_of_rows_is_refused_before_anything_is_computed(tmp_path, said, again, monkeypatch):
    path = tmp_path / "rows.json"
    path.write_text(said)
    monkeypatch.setattr("sys.argv", ["portable", "--out", str(path), *again, "--systems", "other"])
    monkeypatch.setattr(portable, "row", lambda *_: pytest.fail("a row was run"))
    with pytest.raises(UserError, match=r"rows\.json: (no file of results|cannot be read as JSON)"):
        portable.main()
    assert path.read_text() == said


@pytest.mark.parametrize("out", [".", "", "file/x.json", "/proc/x.json"])
def test_a_place_for_no_file_is_refused_before_anything_is_computed(tmp_path, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["portable", "--out", out, "--systems", "other"])
    monkeypatch.setattr(portable, "row", lambda *_: pytest.fail("a row was run"))
    with pytest.raises(UserError, match="cannot be written"):
        portable.main()


def test_the_digest_of_the_code_follows_the_package_and_no_build_of_it(monkeypatch, tmp_path):
    for name in ("src/repix", "stages", "checks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    before = portable.code_digest()
    monkeypatch.setattr(portable, "ROOT", tmp_path)
    (tmp_path / "src/repix.egg-info").mkdir()
    (tmp_path / "src/repix.egg-info" / "SOURCES.txt").touch()
    assert portable.code_digest() == before
    with open(tmp_path / "src/repix/models/fixed_sums.py", "a") as stream:
        stream.write("# another\n")
    assert portable.code_digest() != before
