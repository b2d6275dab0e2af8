"""The grid is checked before the first stage works, and params.yaml survives DVC's own rewriting."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from repix import cli, yaml12
from repix.config import check, reader, sizes
from repix.config.datasets import Dataset
from repix.config.models import Discriminator, Recipe
from repix.errors import UserError
from tests.conftest import ROOT

PARAMS = ROOT / "params.yaml"


def change(tree: dict, key: str, value) -> None:
    *path, last = key.split(".")
    for part in path:
        tree = tree[part]
    if value is KeyError:
        del tree[last]
    else:
        tree[last] = value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run.datasets": ["x;touch Y"]}, "'x;touch Y': names are letters, digits and underscores"),
        ({"run.models": ["$(touch Y)"]}, "names are letters, digits and underscores"),
        ({"run.datasets": ["a-b"]}, "'a-b': names are letters, digits and underscores"),
        ({"run.datasets": ["sampel"]}, "no datasets.sampel; did you mean 'sample'?"),
        ({"run.models": ["pix2pox"]}, "no models.pix2pox; did you mean"),
        (
            {"datasets.sample.archive.sha256": KeyError},
            "sample.archive.sha256: missing; dvc.yaml names it, so write `sha256: null`",
        ),
        (
            {"datasets.sample.images": KeyError},
            "datasets.sample.images: missing; dvc.yaml names it, so write `images: {}`",
        ),
        (
            {"datasets.sample.augment": KeyError},
            "sample.augment: missing; dvc.yaml names it, so write `augment: {flip: true}`",
        ),
        (
            {"datasets.sample.load_size": 72},
            "sample.load_size: belongs to another group: write datasets.sample.images.load_size",
        ),
        (
            {"models.pix2pix_small.profile": KeyError},
            "models.pix2pix_small.profile: missing; dvc.yaml names it, so write",
        ),
        ({"run.datasets": ["cityscapes"]}, "data set 'cityscapes': withdrawn by its licence"),
        (
            {"run.datasets": ["sample", "horse2zebra"]},
            "models.pix2pix_small learns from pairs, and datasets.horse2zebra",
        ),
        ({"models.pix2pix_small.precision": "bfloat16"}, "precision: bfloat16 cannot be exported to onnx"),
        ({"evaluate.fid": True, "evaluate.features": "incption"}, "no features.incption; did you mean 'inception'?"),
        ({"evaluate.lpips": True}, "no features.lpips; what such an entry holds: repix's docs/metrics.md"),
        ({"evaluat": {"fid": True}}, "evaluat: no stage reads this section; did you mean 'evaluate'?"),
        ({"runs": {}}, "runs: no stage reads this section; did you mean 'run'?"),
        (
            {"datasets.sample.archive.urls": ["d/two"]},
            "archive.urls: 'd/two': repix knows https://, http://, file: and",
        ),
        (
            {"evaluate.fid": True, "features.inception.urls": ["weights.pth"]},
            "features.inception.urls: 'weights.pth': repix knows",
        ),
        (
            {"datasets.sample.archive.urls": ["https://ada:secret@host/x.zip"]},
            "'https://host/x.zip' holds a user",
        ),
        (
            {"datasets.sample.archive.urls": ["https://host/x.zip?token=abc"]},
            "'https://host/x.zip' holds a secret",
        ),
        (
            {"datasets.sample.archive.urls": ["https://host:port/x.zip"]},
            "'https://host:port/x.zip' is no URL",
        ),
        ({"datasets.sample.archive.urls": ["file://data/x.zip"]}, "names the host 'data'; write file:///absolute/path"),
        (
            {"evaluate.fid": True, "features.inception.urls": ["https://ada:secret@host/x.pth"]},
            "features.inception.urls: 'https://host/x.pth' holds a user",
        ),
        (
            {"datasets.sample.archive.urls": ["synthetic:facade"]},
            "archive.urls: synthetic:facade: no such generator",
        ),
        (
            {"datasets.sample.archive.urls": ["synthetic:facades?size=64&trian=400"]},
            "datasets.sample.archive.urls: synthetic:facades: unknown option 'trian'; did you mean 'train'?",
        ),
        (
            {"datasets.sample.archive.urls": ["synthetic:facades?train=0"]},
            "train=0: expected 1 .. 1000000",
        ),
        ({"datasets.sample.archive.urls": ["synthetic:facades?size"]}, "write synthetic:generator?option=value"),
        (
            {"models.pix2pix_small.start_from": {"file": "README.md", "networks": "generator"}},
            "pix2pix_small.start_from.file: README.md is neither .keras, .npz nor a folder such as exports/<cell>",
        ),
        (
            {"models.pix2pix_small.start_from": {"file": "docs", "networks": "generator"}},
            "start_from.file: docs has no <translator>/model.keras; it is no folder of exports",
        ),
        ({"datasets.sample.archive.urls": ["ftp://ada:secret@host/x"]}, "archive.urls: 'ftp:': repix knows"),
        (
            {"run.models": ["pix2pix_plus", "pix2pix_small"], "export.variant": "ema"},
            "export.variant: ema: models.pix2pix_small keeps no moving average: set models.pix2pix_small.ema, such as",
        ),
        ({"export.formats": ["onx"]}, "export.formats"),
        ({"gate.seeds": [1, 1]}, "gate.seeds"),
        (
            {"gate.variants": ["last", "best_paper"]},
            "gate.variants: best_paper has no scores to gate",
        ),
        ({"gate.metrics": ["fid", "kid"]}, "gate.metrics: datasets.sample gets no fid or kid, so the gate would have"),
        (
            {"run.datasets": ["horse2zebra"], "run.models": ["cyclegan"], "gate.metrics": ["ssim"]},
            "datasets.horse2zebra gets no ssim, so the gate would have nothing to hold: name one of swd",
        ),
        ({"export.litert_weights": "float16"}, "export.tolerance.litert: max: 5e-05 is less than float16 rounds"),
        ({"datasets.sample.images.crop_size": 80}, "crop_size (80, 80) is larger than load_size (64, 64)"),
        (
            {"datasets.sample.images.crop_size": 62},
            "models.pix2pix_small on datasets.sample: a U-Net of depth 2",
        ),
        (
            {"datasets.sample.images.resize": "scale_width", "datasets.sample.images.crop_size": [64, 72]},
            "crop_size (64, 72) is wider than the 64 px that load_size scales to",
        ),
        ({"models.pix2pix_small.discriminator.layers": 6}, "a discriminator of 6 layers is too deep for 64 x 64 px"),
        (
            {"run.models": ["cyclegan"], "datasets.sample.images.crop_size": [62, 64]},
            "models.cyclegan on datasets.sample: a ResNet generator halves twice, so 62 x 64 px",
        ),
        ({"run.models": ["my-model"]}, "'my-model': names are letters, digits and underscores"),
        ({"limits.unpack_ratio": 0}, "limits.unpack_ratio"),
        ({"export": KeyError}, "no export"),
    ],
)
def test_what_cannot_hold_is_said_at_the_start_in_one_line(tmp_path, changes, said):
    tree = reader.load(PARAMS)
    for key, value in changes.items():
        change(tree, key, value)
    file = tmp_path / "params.yaml"
    file.write_text(yaml12.dump(tree), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check.grid(file)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("profile", "batch", "fits"), [("jax-4", 8, True), ("jax-4", 6, False), ("jax", 1, True)])
def test_a_batch_that_cannot_be_cut_over_the_devices_is_said_at_the_start(tmp_path, monkeypatch, profile, batch, fits):
    tree = reader.load(PARAMS)
    change(tree, "run.profile", profile)
    change(tree, "models.pix2pix_small.batch_size", batch)
    (tmp_path / "params.yaml").write_text(yaml12.dump(tree), encoding="utf-8")
    monkeypatch.setattr(check, "find_spec", lambda name: True)
    if fits:
        check.grid(tmp_path / "params.yaml")
        return
    with pytest.raises(
        UserError, match=r"pix2pix_small.batch_size: 6 cannot be cut over the 4 devices .* multiple of 4"
    ):
        check.grid(tmp_path / "params.yaml")


def test_a_backend_that_is_not_installed_is_said_at_the_start(tmp_path, monkeypatch):
    tree = reader.load(PARAMS)
    change(tree, "run.profile", "jax")
    (tmp_path / "params.yaml").write_text(yaml12.dump(tree), encoding="utf-8")
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"models.pix2pix_small trains under the profile jax, and JAX is not installed"):
        check.grid(tmp_path / "params.yaml")


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 12, 16, 30, 31, 64, 70])
def test_the_arithmetic_of_sizes_is_that_of_the_networks(size):
    """What is refused could not be built, and what is let through can: seen from the layers' own shapes."""
    from repix.libraries import import_keras
    from repix.models.discriminators import build_discriminator

    import_keras()
    for layers in (1, 2, 3, 4, 5):
        for stride_one in (True, False):
            settings = Discriminator(filters=1, layers=layers, stride_one=stride_one)
            try:
                sizes.check_discriminator(settings, (size, size))
                fits = True
            except UserError:
                fits = False
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("repix.models.discriminators.check_discriminator", lambda settings, size: None)
                try:
                    shape = build_discriminator(settings, (size, size), 1, 1).output_shape
                    built = min(shape[1:3]) > 0
                except ValueError:
                    built = False
            assert fits == built, (layers, stride_one)


def test_a_system_of_ones_own_need_not_have_both_networks():
    recipe = Recipe(system="pix2pix")
    with pytest.raises(UserError, match="too deep"):
        sizes.check(recipe, (8, 8))
    sizes.check(recipe.model_copy(update={"system": "regression"}), (8, 8))


def test_the_command_says_how_many_cells_can_run(tmp_path, monkeypatch, capsys):
    tree = reader.load(PARAMS)
    monkeypatch.chdir(tmp_path)
    for value, said in (([0], "sample-pix2pix_small-0 can run\n"), ([0, 1, 2], "all 3 cells can run\n")):
        change(tree, "run.seeds", value)
        (tmp_path / "params.yaml").write_text(yaml12.dump(tree), encoding="utf-8")
        with pytest.raises(SystemExit) as exit_:
            cli.main(["check"])
        assert (exit_.value.code, capsys.readouterr().out) == (0, said)
    change(tree, "datasets.sample.archive.urls", ["file:january/"])
    (tmp_path / "params.yaml").write_text(yaml12.dump(tree), encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main(["check"])
    assert "datasets.sample.archive.urls: file:january/: no such file or folder" in capsys.readouterr().err
    (tmp_path / "january").mkdir()
    with pytest.raises(SystemExit):
        cli.main(["check"])
    assert capsys.readouterr().err == ""
    change(tree, "models.pix2pix_small.epochs", 0)
    (tmp_path / "params.yaml").write_text(yaml12.dump(tree), encoding="utf-8")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["check"])
    assert exit_.value.code == 1 and "models.pix2pix_small.epochs: 0: input should be" in capsys.readouterr().err


def test_the_grid_as_it_stands_holds_and_the_check_is_light():
    code = (
        "import sys; from repix.config import check; check.grid(); "
        "print([name for name in ('numpy', 'keras', 'tensorflow', 'mlflow', 'dvc') if name in sys.modules])"
    )
    source = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=source, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "[]\n"), found.stderr


def typed(path):
    tree = reader.load(path)
    found = {name: reader.read(f"datasets.{name}", Dataset, path) for name in tree["datasets"]}
    return found | {name: reader.read(f"models.{name}", Recipe, path) for name in tree["models"]}


def test_dvc_rewrites_no_line_but_the_one_that_was_changed(tmp_path):
    """What ``dvc exp run -S`` does to params.yaml, for every data set and every model at once."""
    from dvc.utils.hydra import apply_overrides

    file = tmp_path / "params.yaml"
    before = PARAMS.read_text(encoding="utf-8")
    file.write_text(before, encoding="utf-8")
    tree = reader.load(PARAMS)
    overrides = [f"models.{name}.epochs=77" for name in tree["models"]]
    overrides += [f"{SHA.format(name)}={'ab' * 32}" for name in tree["datasets"]]
    apply_overrides(file, overrides)
    after = file.read_text(encoding="utf-8").splitlines()
    changed = [(a, b) for a, b in zip(before.splitlines(), after, strict=True) if a != b]
    assert len(changed) == len(overrides), changed[:5]
    was, now = typed(PARAMS), typed(file)
    for name in tree["models"]:
        assert now[name] == was[name].model_copy(update={"epochs": 77}), name
    for name in tree["datasets"]:
        archive = was[name].archive.model_copy(update={"sha256": "ab" * 32})
        assert now[name] == was[name].model_copy(update={"archive": archive}), name


def test_a_key_that_an_entry_leaves_at_its_default_is_set_with_two_plus_signs(tmp_path):
    """The line that DVC says without them stands in README.md."""
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides

    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InvalidArgumentError) as caught:
        apply_overrides(file, ["datasets.maps.images.load_size=256"])
    said = str(caught.value.__cause__).splitlines()[:2]
    assert said == [
        "Could not override 'datasets.maps.images.load_size'.",
        "To append to your config use +datasets.maps.images.load_size=256",
    ]
    assert "\n".join(said) in (ROOT / "README.md").read_text(encoding="utf-8")
    keys = {"datasets.maps.images.load_size": 256, "datasets.maps.augment.flip": "false", "models.cyclegan.pool": 3}
    apply_overrides(file, [f"++{key}={value}" for key, value in keys.items()])
    maps, cyclegan = typed(file)["maps"], typed(file)["cyclegan"]
    assert (maps.images.load_size, maps.augment.flip, cyclegan.pool) == (256, False, 3)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFUSED = (
    "datasets.maps.images.load_size=256",
    "++models.pix2pix_small.loss.gan=lsgna",
)  # README.md shows what is said to these


def test_every_change_of_a_param_that_the_pages_teach_is_taken_by_dvc(tmp_path):
    from dvc.utils.hydra import apply_overrides

    taught = {
        given.strip("'")
        for page in PAGES
        for given in re.findall(r"-S ('[^']+'|[^\s'`]+)", page.read_text(encoding="utf-8"))
    } - set(REFUSED)
    assert {"run.datasets=[facades]", "++datasets.facades.images.resample=box", "models.pix2pix.epochs=2"} <= taught
    file = tmp_path / "params.yaml"
    for given in sorted(one for one in taught if "=" in one and not one.startswith(("key=", "++key="))):
        file.write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
        apply_overrides(file, [given])
        typed(file)


@pytest.mark.parametrize("page", ["README.md", "docs/your-own.md"])
def test_the_entries_that_the_pages_show_are_sound(page, tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    entries = {
        name: entry for block in blocks for name, entry in yaml12.load(block, page).items() if "archive" in entry
    }
    assert entries
    tree = reader.load(PARAMS)
    tree["datasets"] |= entries
    tree["run"]["datasets"] = list(entries)
    file = tmp_path / "params.yaml"
    file.write_text(yaml12.dump(tree), encoding="utf-8")
    check.grid(file)


SHA = "datasets.{}.archive.sha256"


def test_what_dvc_wants_written_down_is_asked_for(tmp_path):
    """Each param that dvc.yaml declares, taken away: the check says so before DVC does, one stage after the other."""
    wiring = yaml12.read(ROOT / "dvc.yaml")["stages"]
    declared = {param for stage in wiring.values() for param in stage.get("params", ())}
    named = {"item.dataset": "sample", "item.model": "pix2pix_small"}
    for param in declared:
        key = re.sub(r"\$\{(.*?)\}", lambda found: named[found[1]], param)
        tree = yaml12.read(ROOT / "params.yaml")
        *above, last = key.split(".")
        place = tree
        for part in above:
            place = place[part]
        del place[last]
        (tmp_path / "params.yaml").write_text(yaml12.dump(tree), encoding="utf-8")
        with pytest.raises(UserError, match=rf"\b{re.escape(last)}\b"):
            check.grid(tmp_path / "params.yaml")
    assert len(declared) > 25
