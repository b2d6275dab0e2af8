"""Who moves when: every system, every order of updates, through the step that trains."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from checks.support import cells
from repix.config.models import Optimizer
from repix.errors import UserError
from repix.models.initialization import initialize
from repix.registry import SYSTEMS
from repix.systems.system import Batch, Move, build

RANGE = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
# A large epsilon makes Adam's first step follow the gradient's size, not its sign alone.
ADAM = Optimizer(learning_rate=0.1, epsilon=1.0)

UPDATES = ("together", "simultaneous", "separate", "alternate")
GENERATORS = {"pix2pix": {"generator"}, "cyclegan": {"generator", "inverse_generator"}}


@pytest.fixture(autouse=True)
def eager_steps(backend, monkeypatch):
    """What moves does not depend on compilation, which would take minutes for so many games."""
    monkeypatch.setattr(backend, "compile_function", lambda function: function)


def new(system, updates="together", channels=(3, 3), **changes):
    generator = {"filters": 2, "kind": "unet" if system == "pix2pix" else "resnet", "blocks": 1, "dropout": 0}
    recipe = cells.recipe(system, updates=updates, generator=generator, **({"pool": 0} | changes))
    built = build(recipe, (16, 16), *channels, paired=True)
    initialize(built.networks, "glorot", 0)
    return built


def play(backend, system, moves=None, steps=1):
    """Play iterations on the same batch; return the names of the networks that moved, weights, losses."""
    if moves is not None:
        system = dataclasses.replace(system, moves=moves)
    step = backend.Step(system, ADAM, RANGE, RANGE, seed=0)
    before = step.state()
    source, target = cells.images(1, 1), cells.images(2, 1)
    draws = np.full((1, system.draws), 0.25, np.float32)
    for number in range(steps):
        losses = np.asarray(step(number, source, target, draws, 0.1))
    after = step.state()
    moved = {
        name.split("/")[0]
        for name in before
        if not name.startswith(("adam/", "pool/")) and (before[name] != after[name]).any()
    }
    return moved, after, dict(zip(step.losses, losses, strict=True))


# A generator's move that asks for nothing: Adam then leaves every bit where it was.
STILL = Move("generator", lambda batch, played: (0.0 * sum(ops.sum(x) for x in played.values()), {}))


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("name", SYSTEMS)
def test_each_move_moves_its_own_player_and_no_other(backend, name, updates):
    whole = new(name, updates)
    generators = GENERATORS[name]
    seen = set()
    for number, phase in enumerate(whole.moves):
        for position, move in enumerate(phase):
            seen.add(move.player)
            # A system of its own, since a move's loss speaks of the networks that it was built with.
            fresh = new(name, updates)
            move = fresh.moves[number][position]
            alone = (move,) if move.player == "generator" else (move, STILL)
            moved, _, losses = play(backend, fresh, (alone,))
            expected = generators if move.player == "generator" else set(whole.networks) - generators
            assert moved == expected, f"move {position} of {move.player}"
            assert all(np.isfinite(value) for value in losses.values())
    assert seen == {"generator", "discriminator"}


def moves_of(system):
    return {move.player: move for move in system.moves[0]}


def network_weights(state, networks):
    return {name: value for name, value in state.items() if name.split("/")[0] in networks}


def equal(one, other):
    assert one.keys() == other.keys()
    return all((one[name] == other[name]).all() for name in one)


def test_together_moves_the_generator_against_the_discriminator_that_has_moved(backend):
    system = new("pix2pix", "together")
    _, both, _ = play(backend, system)
    alone = new("pix2pix", "together")
    _, generator_alone, _ = play(backend, alone, ((moves_of(alone)["generator"],),))
    assert not equal(network_weights(both, {"generator"}), network_weights(generator_alone, {"generator"}))


def test_simultaneous_moves_each_against_the_other_as_it_was(backend):
    _, both, _ = play(backend, new("pix2pix", "simultaneous"))
    one = new("pix2pix", "simultaneous")
    _, generator_alone, _ = play(backend, one, ((moves_of(one)["generator"],),))
    two = new("pix2pix", "simultaneous")
    _, discriminator_alone, _ = play(backend, two, ((moves_of(two)["discriminator"], STILL),))
    assert equal(network_weights(both, {"generator"}), network_weights(generator_alone, {"generator"}))
    assert equal(network_weights(both, {"discriminator"}), network_weights(discriminator_alone, {"discriminator"}))


def players(system):
    return [[move.player for move in phase] for phase in system.moves]


def test_order_of_updates():
    D, G = "discriminator", "generator"
    assert players(new("pix2pix", "together")) == [[D, G]]
    assert players(new("pix2pix", "simultaneous")) == [[G, D]]
    assert players(new("pix2pix", "separate")) == [[D, D, G]]
    assert players(new("pix2pix", "alternate")) == [[D, G], [D, G]]
    assert players(new("cyclegan", "together")) == [[G, D]]
    assert players(new("cyclegan", "separate")) == [[D, D, G]]


def test_alternate_judges_real_images_first_then_generated_ones(backend):
    system = new("pix2pix", "alternate")
    step = backend.Step(system, ADAM, RANGE, RANGE, seed=0)
    batch = (cells.images(1, 1), cells.images(2, 1), np.zeros((1, system.draws), np.float32))
    step(0, *batch, 0.1)
    assert "d_real" in step.losses and "d_fake" not in step.losses
    step(1, *batch, 0.1)
    assert "d_fake" in step.losses and "d_real" not in step.losses


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradient_penalty_is_played(backend, name):
    moved, _, losses = play(backend, new(name, loss={"gan": "wgangp"}))
    assert len(moved) == {"pix2pix": 2, "cyclegan": 4}[name]
    penalties = {key: value for key, value in losses.items() if key.startswith("d_penalty")}
    assert len(penalties) == {"pix2pix": 1, "cyclegan": 2}[name]
    assert all(value > 0 for value in penalties.values())


def eager(system, channels=(3, 3)):
    generator = np.random.default_rng(0)
    source, target = (generator.uniform(-1, 1, (1, 16, 16, n)).astype(np.float32) for n in channels)
    batch = Batch(*map(ops.convert_to_tensor, (source, target)), ops.zeros((1, system.draws)))
    return batch, system.generate(batch)


def test_identity_is_left_out_where_channels_differ():
    equal_channels, unequal = new("cyclegan"), new("cyclegan", channels=(1, 2))
    batch, played = eager(equal_channels)
    _, parts = moves_of(equal_channels)["generator"].loss(batch, played)
    assert {"g_identity_x", "g_identity_y"} <= parts.keys()
    batch, played = eager(unequal, (1, 2))
    assert played["fake_y"].shape[-1] == 2 and played["fake_x"].shape[-1] == 1
    _, parts = moves_of(unequal)["generator"].loss(batch, played)
    assert sorted(parts) == ["g_cycle_x", "g_cycle_y", "g_gan_x", "g_gan_y"]


def test_losses_are_weighted_sums_of_their_parts():
    loss = {"gan": "lsgan", "gan_weight": 2.0, "cycle": 7.0, "identity": 3.0, "discriminator": 0.25}
    system = new("cyclegan", loss=loss)
    batch, played = eager(system)
    value, p = moves_of(system)["generator"].loss(batch, played)
    expected = 2 * (p["g_gan_x"] + p["g_gan_y"]) + 7 * (p["g_cycle_x"] + p["g_cycle_y"])
    assert float(value) == pytest.approx(float(expected + 3 * (p["g_identity_x"] + p["g_identity_y"])), rel=1e-6)
    value, p = moves_of(system)["discriminator"].loss(batch, played)
    assert float(value) == pytest.approx(float(0.25 * sum(p.values())), rel=1e-6)
    assert float(p["d_real_x"]) != float(p["d_real_y"])

    system = new("pix2pix", loss={"l1": 11.0, "gan_weight": 3.0, "discriminator": 0.5})
    batch, played = eager(system)
    value, p = moves_of(system)["generator"].loss(batch, played)
    assert float(value) == pytest.approx(float(3 * p["g_gan"] + 11 * p["g_l1"]), rel=1e-6)
    assert float(p["g_l1"]) == pytest.approx(
        float(np.abs(np.asarray(played["fake"]) - np.asarray(batch.target)).mean()), rel=1e-5
    )


def test_cycle_goes_there_and_back():
    system = new("cyclegan")
    batch, played = eager(system)
    G, F = system.networks["generator"], system.networks["inverse_generator"]
    np.testing.assert_allclose(np.asarray(played["fake_y"]), np.asarray(G(batch.source)), atol=1e-6)
    np.testing.assert_allclose(np.asarray(played["cycled_x"]), np.asarray(F(G(batch.source))), atol=1e-6)
    np.testing.assert_allclose(np.asarray(played["cycled_y"]), np.asarray(G(F(batch.target))), atol=1e-6)
    np.testing.assert_allclose(np.asarray(played["same_x"]), np.asarray(F(batch.source)), atol=1e-6)


def test_discriminators_see_what_the_pool_shows(backend):
    system = new("cyclegan", pool=2)
    _, state, _ = play(backend, system, steps=3)
    assert state["pool/source_fakes/count"] == 2
    assert state["pool/target_fakes/images"].shape == (2, 16, 16, 3)
    assert state["pool/target_fakes/images"].any()


def test_an_unknown_system_names_the_known():
    with pytest.raises(UserError, match=r"'pixpix' does not exist; there are pix2pix, cyclegan"):
        build(cells.recipe("pix2pix").model_copy(update={"system": "pixpix"}), (16, 16), 3, 3, paired=True)


def test_a_paired_system_refuses_unpaired_data_by_name():
    with pytest.raises(UserError, match=r"'pix2pix' learns from pairs.*choose a cyclegan model"):
        build(cells.recipe("pix2pix"), (16, 16), 3, 3, paired=False)
    assert build(cells.recipe("cyclegan"), (16, 16), 3, 3, paired=False).translators


def test_the_system_written_in_the_docs_trains(backend):
    text = (Path(__file__).resolve().parents[2] / "docs" / "systems.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    module: dict = {}
    exec(compile(code, "docs/systems.md", "exec"), module)
    assert module["NEEDS_PAIRS"]
    system = module["build"](cells.recipe("pix2pix"), (16, 16), 3, 3)
    initialize(system.networks, "glorot", 0)
    moved, _, losses = play(backend, system)
    assert moved == {"generator"}
    assert losses["g_l1"] > 0
