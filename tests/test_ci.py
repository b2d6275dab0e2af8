"""What CI takes from others is named by its content: a tag can be moved, a commit cannot."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_documents import assert_read

WORKFLOWS = sorted(path for folder in (ROOT, ROOT / "project") for path in folder.glob(".github/workflows/*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_may_do_little(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: *(.*)", text)
    assert used and all(re.fullmatch(r"[\w-]+(/[\w-]+)+@[0-9a-f]{40}  # v\d+\.\d+\.\d+.*", line) for line in used), used
    assert yaml.safe_load(text)["permissions"]["contents"] == "read"
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")


def test_the_nightly_gate_runs_commands_that_exist(tmp_path):
    text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["facades"]["steps"]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    found = [line.partition(" >")[0].removeprefix(".venv/bin/") for line in lines if line.startswith(".venv/bin/")]
    assert [line.split()[:3] for line in found] == [
        ["python", "-m", "benchmarks.quality"],
        ["repix", "gate", "--metrics"],
    ]
    for line in found:
        assert_read(line, tmp_path / "params.yaml")
    # Results of other code must not be taken for this one's.
    assert "restore-keys:" not in text.replace("no restore-keys:", "")


def test_what_builds_the_package_is_one_version_and_the_installed_one():
    (required,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert re.fullmatch(r"setuptools==[\d.]+", required)
    assert required in (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")


def test_the_server_of_a_team_has_the_packages_that_are_tested_and_listens_here_alone():
    services = yaml.safe_load((ROOT / "docs" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    installed = re.findall(r"[\w-]+==[\d.]+", services["mlflow"]["build"]["dockerfile_inline"])
    assert len(installed) == 3 and set(installed) <= set(pinned)
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:5000:5000"]
