"""The pages' figures come from commands: every block that one writes is there, and so is the command."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from checks.support import route
from repix import yaml12
from repix.config import reader
from repix.config.models import Recipe
from repix.errors import UserError
from repix.provenance import pipeline
from repix.schemas import Exported, Trained
from tests.conftest import ROOT
from tests.documents import blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- (\S+):begin \(written by `([^`]+)`\) -->\n(.*?)<!-- (\S+):end -->", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_written_block_is_filled_and_its_command_exists(page):
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count(":begin") == text.count(":end -->")
    for name, command, content, end in blocks:
        assert name == end
        assert content.count("\n") > 2, f"{name} is empty; run `{command}`"
        for module in re.findall(r"-m ((?:checks|benchmarks)\.\w+)", command):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def commands() -> list[tuple[str, str]]:
    """Return (page, command) for every command that a page has in a block or between back quotes."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```(?:console|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found += [(page.name, line.removeprefix("$ ")) for line in block.splitlines()]
        found += [(page.name, line.strip()) for line in re.findall(r"^    \S.*", text, re.MULTILINE)]
        found += [(page.name, span) for span in re.findall(r"`([^`\n]+)`", text)]
    kinds = ("repix ", "make ", "dvc exp run ", "python -m ")
    return sorted({(page, line.split("  ")[0].split(" # ")[0]) for page, line in found if line.startswith(kinds)})


def problem(command: str) -> str | None:
    """Return what a command names that is not there: a target, subcommand, option, key, model or data set."""
    words = shlex.split(command)
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    if words[0] == "make":
        return None if f"\n{words[1]}:" in (ROOT / "Makefile").read_text() else words[1]
    if words[0] == "dvc":
        params = yaml12.load((ROOT / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
        own = {"datasets": {"discs", "my_pairs"}, "models": {"pix2pix_discs", "wgan_discs"}}
        for key, _, value in (word.partition("=") for word in words if "=" in word and not word.startswith("-")):
            if key in ("run.datasets", "run.models"):
                kind = key.removeprefix("run.")
                missing = set(value.strip("[]").split(",")) - params[kind].keys() - own[kind]
                if missing:
                    return f"{kind}: {missing}"
                continue
            group, _, name = key.lstrip("+").rpartition(".")
            there = pipeline.look_up(params, group)
            # DVC sets a key that is written in the file, and adds one after a plus: a field of the settings.
            fields = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/repix/config").glob("*.py"))
            if there is None and key.startswith("+"):  # a group that the entry leaves at its defaults
                there = pipeline.look_up(params, group.rpartition(".")[0])
            if there is None or (f"\n    {name}: " not in fields if key[0] == "+" else name not in there):
                return key
        return None
    file = f"src/repix/commands/{words[1]}.py" if words[0] == "repix" else f"{words[2].replace('.', '/')}.py"
    path = ROOT / (f"src/{file}" if file.startswith("repix/") else file)
    if not path.is_file():
        return words[1 if words[0] == "repix" else 2]
    text = path.read_text(encoding="utf-8")
    known = {f"--{name}" for name in re.findall(r'"(?:--)?([\w-]+)"', text)} | {"--help"}
    return next((option for option in options if option not in known), None)


def test_every_command_of_the_pages_names_what_is_there():
    found = commands()
    assert len(found) > 60
    wrong = {(line, problem(line)) for _, line in found if problem(line)}
    # README shows what DVC says to this.
    assert wrong == {
        ("dvc exp run -S datasets.maps.images.load_size=256", "datasets.maps.images.load_size"),
        # An entry that the reader has just written.
        ("dvc exp run -S 'run.models=[pix2pix_small,other]' -S 'run.seeds=[0,1,2,3,4]'", "models: {'other'}"),
    }


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("dvc exp run -S models.pix2pix_small.epoch=4", "models.pix2pix_small.epoch"),
        ("dvc exp run -S 'run.models=[pix2pics]'", "models: {'pix2pics'}"),
        ("dvc exp run -S models.pix2pics.epochs=2", "models.pix2pics.epochs"),
        ("dvc exp run -S +models.pix2pix.generator.dropuot=0", "+models.pix2pix.generator.dropuot"),
        ("make tests", "tests"),
        ("repix floors sample", "floors"),
        ("repix seeds sample pix2pix_small --wrote", "--wrote"),
        ("python -m benchmarks.gate", "benchmarks.gate"),
        ("python -m checks.gate --trains", "--trains"),
    ],
)
def test_a_command_that_does_not_exist_is_seen(command, wrong):
    assert problem(command) == wrong


def test_the_mistake_of_the_readme_is_answered_as_it_says():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, answer = re.search(r"^\$ (dvc exp run .*)\nrepix: (.*)$", text, re.MULTILINE).groups()
    key, _, value = command.split()[-1].partition("=")
    _, model, group, name = key.split(".")
    entry = reader.section(f"models.{model}", ROOT / "params.yaml")
    with pytest.raises(UserError) as found:
        reader.parse(entry | {group: entry[group] | {name: value}}, Recipe, f"models.{model}", "params.yaml")
    assert str(found.value) == answer


def test_every_path_in_the_text_is_there():
    folders = "src|stages|tests|checks|benchmarks|docs|code"
    named = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 15
    # What the reader of a page is asked to write.
    made = {
        (page.name, path) for page in PAGES for path in re.findall(r"^# (src/\S+\.py)$", page.read_text(), re.MULTILINE)
    }
    assert sorted((page, path) for page, path in named - made if not (ROOT / path).exists()) == []


# What stands in a line for the reader to add -> file of the table, and the text that it may follow.
TABLES = {
    "GanSystem": ("registry.py", "SYSTEMS = {\n"),
    "Format": ("registry.py", "FORMATS = {\n"),
    "Metric": ("metrics.py", "METRICS = (\n"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A copy of the repository with every block of docs/your-own.md put where the page says, and the data prepared."""
    root = route.copy(tmp_path_factory.mktemp("followed") / "repix")
    page = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
    params = yaml12.load((root / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
    for language, text in re.findall(r"^```(python|yaml)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        if language == "yaml":
            [(name, entry)] = yaml12.load(text, "the page").items()
            params["datasets" if "archive" in entry else "models"][name] = entry
        elif text.startswith("# "):
            path = root / text.split("\n")[0].removeprefix("# ")
            assert path.parent.is_dir() and not path.exists()
            path.write_text(text, encoding="utf-8")
        else:
            [line] = re.findall(r"^ .*\(.*\),\n", text, re.MULTILINE)
            file, begin = TABLES[re.search(r"(\w+)\(", line)[1]]
            table = root / "src" / "repix" / file
            whole = table.read_text(encoding="utf-8")
            assert begin in whole
            table.write_text(whole.replace(begin, begin + line), encoding="utf-8")
    subprocess.run([sys.executable, "own.py"], cwd=root, check=True)
    params["run"] |= {"datasets": ["discs"], "models": ["pix2pix_discs", "wgan_discs"]}
    params["export"]["formats"] = ["keras", "toy"]
    for model in params["run"]["models"]:
        params["models"][model]["epochs"] = 2
    (root / "params.yaml").write_text(yaml12.dump(params), encoding="utf-8")
    return route.run(root, "code", "download", "unpack", "preprocess", "features")


@pytest.fixture
def followed(begun, tmp_path):
    """A copy of what was begun; its folder."""
    return shutil.copytree(begun, tmp_path / "repix")


def test_the_entries_of_the_page_on_your_own_are_as_those_of_params_yaml(tmp_path):
    """Put in as text, they hold what differs from the defaults, and DVC rewrites no line of them."""
    from dvc.utils.hydra import apply_overrides

    page = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
    entries = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    head, models = (ROOT / "params.yaml").read_text(encoding="utf-8").split("\nmodels:")
    before = head + "".join(text for text in entries if "archive:" in text)
    before += "\nmodels:" + models + "".join(text for text in entries if "system:" in text)
    file = tmp_path / "params.yaml"
    file.write_text(before, encoding="utf-8")
    apply_overrides(file, ["run.seeds=[0]"])
    assert file.read_text(encoding="utf-8") == before
    for name, given in yaml12.load(before, "params.yaml")["models"].items():
        default = Recipe(system="pix2pix").model_dump(mode="json")
        for key in ("kind", "filters", "norm", "layers"):
            for network in ("generator", "discriminator"):
                if name.endswith("_discs") and key in given[network]:
                    assert given[network][key] != default[network].get(key), (name, network, key)


@pytest.mark.parametrize("profile", ["auto", "jax"])
def test_the_page_on_your_own_can_be_followed(followed, profile):
    """By stages and commands of the page, each in a process of its own: it takes as long as their start."""
    if profile == "jax":
        pytest.importorskip("jax")
        params = yaml12.load((followed / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
        params["run"] |= {"profile": "jax", "models": ["wgan_discs"]}
        (followed / "params.yaml").write_text(yaml12.dump(params), encoding="utf-8")
        route.run(followed, "code", "preprocess")
    route.run(followed, "train")
    route.run(followed, "evaluate", "export")
    trained = Trained.read(followed / "runs" / "discs-wgan_discs-0" / "trained.json")
    assert trained.profile["backend"] == ("jax" if profile == "jax" else "tensorflow")
    exported = Exported.read(followed / "exports" / "discs-wgan_discs-0" / "export.json")
    assert exported.parity == "pass" and set(exported.bytes["source_to_target"]) == {"keras", "toy"}
    if profile == "auto":
        use_what_was_trained(followed)


def use_what_was_trained(root):
    """Run what docs/your-own.md says about results and translations, as it stands there."""
    page = [block for block in blocks() if block.page == "docs/your-own.md" and block.language == "bash"]
    found = [command for block in page for command, _ in block.commands() if command.startswith("repix ")]
    assert [command.split()[1] for command in found] == ["results", "results", "translate", "translate"]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    for command in found:
        run = [sys.executable, "-m", "repix.cli", *shlex.split(command)[1:]]
        done = subprocess.run(run, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
    assert len(list((root / "out").iterdir())) == 3
