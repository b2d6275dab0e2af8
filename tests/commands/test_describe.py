"""`repix describe`: counts pinned to the sources, FLOPs by hand, one-line errors, the table of the docs."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from repix import cli
from repix.config import reader
from repix.config.models import Recipe
from repix.data.prepared import Prepared
from repix.errors import UserError

pytestmark = pytest.mark.usefixtures("library_convolutions")  # how the portable profile sums is another thing

ROOT = Path(__file__).resolve().parents[2]
CELLS = (
    "facades-pix2pix",
    "facades-pix2pix_plus",
    "facades_unaligned-cyclegan",
    "maps-pix2pix_scratch",
    "facades_bw-pix2pix_book",
    "monet2photo_128-cyclegan_book",
    "facades-pix2pix_tf2",
    "facades-pix2pix_affine",
    "lab_colorization-pix2pix_affine",
)


@cache
def described(cell):
    """A description without its networks, and the channels of each network's batch norms together."""
    from repix.commands import describe
    from repix.libraries import import_keras

    import_keras()
    from repix.models.layers import BatchNormalization
    from repix.training.backend import step_module

    step_module()
    dataset, _, model = cell.rpartition("-")
    description, system = describe.describe(model, dataset)
    channels = {
        name: sum(layer.output.shape[-1] for layer in network.layers if isinstance(layer, BatchNormalization))
        for name, network in system.networks.items()
    }
    return description, channels


def conv(kernel, pairs):
    """Parameters of convolutions with biases, from (channels in, channels out)."""
    return sum(kernel * kernel * a * b + b for a, b in pairs)


def chain(*channels):
    return list(pairwise(channels))


def by_hand():
    """Parameters as the sources' layer tables give them: (generator, discriminator)."""
    encoder = chain(1, 64, 128, 256, 512, 512, 512, 512, 512)
    decoder = [(512, 512), (1024, 1024), (1536, 1024), (1536, 1024), (1536, 1024), (1280, 512), (640, 256), (320, 1)]
    norms = [128, 256, *[512] * 5, 512, *[1024] * 4, 512, 256]
    book = conv(4, encoder) + conv(4, decoder) + 2 * sum(norms)
    book_d = conv(4, encoder) + 2 * (128 + 256 + 5 * 512) + (512 * 2 + 2) + 512 * 500 + (102 * 2 + 2)
    blocks = conv(3, [(128, 128)] * 12) + 2 * 12 * 128
    resnet = conv(7, [(3, 32), (32, 3)]) + conv(3, chain(32, 64, 128)) + conv(3, chain(128, 64, 32)) + blocks
    resnet += 2 * (32 + 64 + 128 + 64 + 32)
    patch = conv(4, chain(3, 64, 128, 256, 512, 1)) + 2 * (128 + 256 + 512)
    return {"book": (book, book_d), "cyclegan_book": (resnet, patch)}


PINNED = {
    # the reference codes' counts
    "facades-pix2pix": (54_413_955, (256, 256, 3), 2_768_705, (30, 30, 1), 70),
    "facades-pix2pix_plus": (54_413_955, (256, 256, 3), 2_768_705, (30, 30, 1), 70),
    "facades_unaligned-cyclegan": (11_378_179, (256, 256, 3), 2_764_737, (30, 30, 1), 70),
    # the tutorial's totals less their moving statistics, see below
    "maps-pix2pix_scratch": (54_419_459, (256, 256, 3), 6_965_441, (16, 16, 1), 142),
    "facades_bw-pix2pix_book": (129_137_089, (256, 256, 1), 19_795_856, (2,), None),
    "monet2photo_128-cyclegan_book": (1_968_771, (128, 128, 3), 2_766_529, (7, 7, 1), 94),
    # as the tutorial's model.summary() counts the trainable ones
    "facades-pix2pix_tf2": (54_414_979, (256, 256, 3), 2_768_641, (30, 30, 1), 70),
    "facades-pix2pix_affine": (54_420_483, (256, 256, 3), 2_769_601, (30, 30, 1), 70),
    "lab_colorization-pix2pix_affine": (54_416_386, (256, 256, 2), 2_766_529, (30, 30, 1), 70),
}


@pytest.mark.parametrize("cell", CELLS)
def test_networks_of_the_recipes(cell):
    networks = list(described(cell)[0].facts.networks.values())
    G, D = networks[0], networks[-1]
    assert (G.parameters, G.output, D.parameters, D.output, D.receptive_field) == PINNED[cell]


def test_counts_follow_from_the_books_layer_tables():
    hand = by_hand()
    book = PINNED["facades_bw-pix2pix_book"]
    # The book has a norm over the single place of the discriminator's last 512 maps as well.
    assert hand["book"] == (book[0], book[2] + 2 * 512)
    cyclegan = PINNED["monet2photo_128-cyclegan_book"]
    assert hand["cyclegan_book"] == (cyclegan[0], cyclegan[2])


def test_the_tutorials_totals_are_ours_and_its_moving_statistics():
    description, channels = described("maps-pix2pix_scratch")
    networks = description.facts.networks
    totals = {name: networks[name].parameters + 2 * channels[name] for name in networks}
    assert totals == {"generator": 54_429_315, "discriminator": 6_968_257}


def test_table_of_the_docs_is_what_the_command_prints():
    from repix.commands.describe import markdown

    text = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    table = markdown([described(cell)[0] for cell in CELLS])
    assert table in text, "run the command above the table in docs/systems.md and paste what it prints"
    assert f"repix describe {' '.join(CELLS)} --markdown" in text.replace(" \\\n    ", " ")


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["describe", *words])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_json_of_the_sample(capsys):
    code, out, _ = run(capsys, "pix2pix_small", "--dataset", "sample", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["size"] == [64, 64]
    networks = found["facts"]["networks"]
    assert networks["discriminator"]["receptive_field"] == 34
    assert networks["generator"]["layers"][:1] == ["down1"] and all(one["layers"] for one in networks.values())


def test_the_layers_of_the_json_are_those_that_freeze_takes(capsys):
    from repix.commands.describe import describe
    from repix.training.start import Beginning

    networks = json.loads(run(capsys, "cyclegan", "--json")[1])["facts"]["networks"]
    _, system = describe("cyclegan", None)
    translating = system.optimizer_groups["generator"]
    beginning = SimpleNamespace(key="models.x.start_from", asked=SimpleNamespace(freeze=["nosuch"]))
    with pytest.raises(UserError, match="begins with 'nosuch'; it has ") as caught:
        Beginning._freeze(beginning, system, translating)
    taken = str(caught.value).rpartition("it has ")[2].split(", ")
    assert taken == list(dict.fromkeys(layer for name in translating for layer in networks[name]["layers"]))


def test_text_and_diagram(capsys, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    code, out, _ = run(capsys, "sample-pix2pix_small", "--diagram", str(first))
    assert code == 0
    assert "1,830,563" in out and "14 x 14 x 1" in out and "34 px" in out
    run(capsys, "sample-pix2pix_small", "--diagram", str(second))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")


def test_a_cell_is_described_without_its_seed(capsys):
    assert run(capsys, "sample-pix2pix_small-3") == run(capsys, "sample-pix2pix_small")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sample-pix2pix_smal-0",), "did you mean 'pix2pix_small'"),
        (("pix2pix_smal",), "did you mean 'pix2pix_small'"),
        (("horse2zebra-pix2pix_small",), "learns from pairs"),
        (("pix2pix_small", "--dataset", "smaple"), "did you mean 'sample'"),
        (("sample-pix2pix_small", "--dataset", "maps"), "names its data set already"),
        (("pix2pix_small", "--diagram", "a.bmp"), "write one of .png"),
        (("pix2pix_small", "pix2pix", "--diagram", "a.png"), "name one"),
        (("pix2pix_small", "pix2pix", "--measure"), "name one"),
        (("pix2pix_small", "--measure", "--markdown"), "leave one of them out"),
    ],
)
def test_mistakes_are_one_line(capsys, words, message):
    code, _, err = run(capsys, *words)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


def test_flops_by_hand():
    from repix.libraries import import_keras

    import_keras()
    from keras import Input, Model, layers

    from repix.description.facts import activations, flops, receptive_field

    x = image = Input((8, 8, 3))
    x = layers.Conv2D(5, 4, 2, "same")(x)
    x = layers.Conv2DTranspose(2, 4, 2, "same")(x)
    network = Model(image, x)
    # places x kernel x channels in x channels out x 2
    assert flops(network) == 2 * (16 * 16 * 3 * 5 + 16 * 16 * 5 * 2)
    assert activations(network) == 4 * 4 * 5 + 8 * 8 * 2
    # two neighbours of stride 2, each 4 wide
    assert receptive_field(network) == 6


def test_passes_and_checkpoint_are_those_of_the_step(tmp_path):
    from repix.libraries import import_keras

    import_keras()
    from checks.support import cells
    from repix.description.facts import checkpoint_bytes, memory_bytes, parameters, passes
    from repix.systems.system import build
    from repix.training.backend import step_module
    from repix.training.checkpoint import Checkpoint, Checkpoints

    backend = step_module()
    total, kept = passes(cells.recipe("pix2pix"), 3, 3)
    # G: forward and two gradients; D: twice on its own move, and forward and one gradient on G's
    assert (total, kept) == ({"generator": 3, "discriminator": 8}, {"generator": 1, "discriminator": 1})
    assert passes(cells.recipe("pix2pix", updates="alternate"), 3, 3)[0]["discriminator"] == 5
    # Two iterations of D with a forward pass of G each, then one of both.
    total, kept = passes(cells.recipe("pix2pix", discriminator_updates=3), 3, 3)
    assert (total, kept) == ({"generator": 5 / 3, "discriminator": 20 / 3}, {"generator": 1, "discriminator": 1})
    total, _ = passes(cells.recipe("cyclegan"), 3, 3)
    assert total["generator"] == total["inverse_generator"] == 9
    assert passes(cells.recipe("cyclegan"), 1, 3)[0]["generator"] == 6

    recipe = cells.recipe("pix2pix", generator={"filters": 16}, pool=3)
    system = build(recipe, (32, 32), 3, 3, paired=True)
    sampler = SimpleNamespace(steps_per_epoch=1)
    ranges = ((0,) * 3, (255,) * 3), ((0,) * 3, (255,) * 3)
    for ema in (None, 0.999):
        step = backend.Step(system, recipe.optimizer, sampler, *ranges, seed=0, ema=ema)
        path = Checkpoints(tmp_path, "key").save(Checkpoint(0, step.state(), {}))
        averaged = 0 if ema is None else parameters(system.networks["generator"])
        weights = sum(map(parameters, system.networks.values()))
        assert memory_bytes(system, 0, ema is not None) - memory_bytes(system, 0) == 4 * averaged
        assert memory_bytes(system, 1e9) - memory_bytes(system, 0) == 1.25e9
        assert memory_bytes(system, 0) == 1.04e9 + 12 * weights
        assert checkpoint_bytes(system, ema is not None) == pytest.approx(path.stat().st_size, rel=0.01)
    assert np.isfinite(checkpoint_bytes(system))


def test_measured_steps_are_those_of_the_training(capsys, tmp_path, monkeypatch):
    from checks.support import cells
    from repix import paths
    from repix.training import trial

    monkeypatch.setitem(trial.trial.__kwdefaults__, "seconds", 0.0)  # no more steps than it takes
    words = ("sample-pix2pix_small", "--measure")
    monkeypatch.setattr(paths, "PREPARED", tmp_path)
    code, out, _ = run(capsys, *words)
    assert code == 0 and "ms a step under portable" in out and "for 1,000 steps" in out

    cells.prepare_set(tmp_path).rename(tmp_path / "sample")
    code, out, _ = run(capsys, *words, "--json")
    found, recipe = json.loads(out)["measured"], reader.read("models.pix2pix_small", Recipe)
    train = Prepared.open(tmp_path / "sample").split("train")
    assert found["training_steps"] == recipe.epochs * (len(train.source) // recipe.batch_size)
    assert (found["steps"], found["profile"]) == (3, "portable")
    assert found["ms_per_step"] > 0 and found["peak_bytes"] > 1e8


def test_one_process_does_not_measure_many_devices(capsys, tmp_path, monkeypatch):
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(params.replace("profile: auto", "profile: jax-4", 1), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "sample-pix2pix_small", "--measure")
    assert code == 1 and "one for each device" in err and err.count("\n") == 1


def test_a_step_is_the_mean_over_the_schedule(monkeypatch):
    """Where iterations differ, the median of single ones would be the time of one kind of them."""
    from repix.training import trial

    clock, done = [0.0], []

    def iteration(first, count, rate):
        """As steps do: no more than the iterations of one kind in a call."""
        done.append(first)
        clock[0] += (1.0, 1.0, 4.0)[first % 3]
        return ["loss"], np.zeros((1, 1))

    step = SimpleNamespace(run=iteration)
    monkeypatch.setattr(trial, "drawn_step", lambda *given: step)
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[0])
    system, recipe = (
        SimpleNamespace(schedule=("a", "b", "c")),
        SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1e-4)),
    )
    found = trial.trial(system, recipe, (8, 8), 3, 3, seconds=30)
    assert (found.ms, found.first_seconds, found.steps) == (2000.0, 6.0, 15)
    assert done == list(range(24))


@pytest.mark.parametrize(("seconds", "block"), [(30.0, 5), (1000.0, 25), (0.0, 1)])
def test_steps_are_timed_in_blocks_as_they_are_trained(monkeypatch, seconds, block):
    """Where a block is one call, what the call costs is shared by its iterations."""
    from repix.training import trial

    clock, asked = [0.0], []

    def iterations(first, count, rate):
        asked.append(count)
        clock[0] += 1.0 + count
        return ["loss"], np.zeros((count, 1))

    monkeypatch.setattr(trial, "drawn_step", lambda *given: SimpleNamespace(run=iterations))
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[0])
    recipe = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1e-4))
    found = trial.trial(SimpleNamespace(schedule=("a",)), recipe, (8, 8), 3, 3, seconds=seconds)
    assert asked[:3] == [1, 1, 1] and set(asked[3:]) == {block} and len(asked) >= 6
    assert found.ms == pytest.approx(1000 * (1 + block) / block) and found.steps == block * len(asked[3:])


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "benchmarks" / "measured").glob("facades_*.json"))
)
def test_the_memory_that_trainings_took_was_predicted(name):
    """Within 15 percent of what trainings took, each measured when its row of docs/results.md was made.

    One that was stopped (its hours are not known) has up to its checkpoint more, which it read when it went on.
    """
    from repix.libraries import import_keras

    import_keras()
    from repix.description.facts import facts
    from repix.systems.system import build
    from repix.training.backend import step_module

    step_module()
    row = json.loads((ROOT / "benchmarks" / "measured" / f"{name}.json").read_text(encoding="utf-8"))
    recipe = reader.read(f"models.{row['model']}", Recipe).model_copy(update=row.get("recipe", {}))
    found = facts(build(recipe, (row["size"],) * 2, 3, 3, True), recipe, 3, 3)
    costs = [one["cost"] for one in row["seeds"].values()]
    peak, stopped = 1e9 * max(cost["peak_gb"] for cost in costs), any(cost["seconds"] is None for cost in costs)
    assert 0.85 * peak <= found.memory_bytes + stopped * found.checkpoint_bytes
    assert found.memory_bytes <= 1.15 * peak
