"""Which networks each update changes, and when: every system, every schedule, through the step that trains."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from checks.support import cells
from repix.config.models import Optimizer
from repix.errors import UserError
from repix.models import augmentation
from repix.models.fixed_sums import fixed_sums
from repix.models.initialization import initialize
from repix.systems.system import Batch, System, Update, build

RANGE = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
# A large epsilon makes Adam's first step follow the gradient's size, not its sign alone.
ADAM = Optimizer(learning_rate=0.1, epsilon=1.0)

UPDATES = ("together", "simultaneous", "separate", "alternate")
GENERATORS = {"pix2pix": {"generator"}, "cyclegan": {"generator", "inverse_generator"}}


@pytest.fixture(autouse=True)
def eager_steps(backend, monkeypatch):
    """What changes does not depend on compilation, which would take minutes for so many systems."""
    monkeypatch.setattr(backend, "compile_function", lambda function, *networks: function)


def new(system, updates="together", channels=(3, 3), **changes):
    kind = {"kind": "unet"} if system == "pix2pix" else {"kind": "resnet", "blocks": 1}
    generator = kind | {"filters": 2, "dropout": 0}
    recipe = cells.recipe(system, updates=updates, generator=generator, **({"pool": 0} | changes))
    built = build(recipe, (16, 16), *channels, paired=True)
    initialize(built.networks, "glorot", 0)
    return built


def make_step(backend, system):
    """Return the backend's step on a sampler that gives the same batch always."""
    batch = cells.images(1, 1), cells.images(2, 1), np.full((1, system.uniforms), 0.25, np.float32)
    sampler = SimpleNamespace(steps_per_epoch=4, batch=lambda number: batch)
    return backend.Step(system, ADAM, sampler, RANGE, RANGE, seed=0)


def changed(before, after):
    """Return the names of the networks that differ between two states."""
    return {
        name.split("/")[0]
        for name in before
        if not name.startswith(("adam/", "pool/", "ema/")) and (before[name] != after[name]).any()
    }


def run(backend, system, schedule=None):
    """Run one iteration; return the names of the networks that it changed, the state, the losses."""
    if schedule is not None:
        system = dataclasses.replace(system, schedule=schedule)
    step = make_step(backend, system)
    before = step.state()
    names, losses = step.run(0, 1, 0.1)
    after = step.state()
    return changed(before, after), after, dict(zip(names, losses[0], strict=True))


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("name", GENERATORS)
def test_each_update_changes_its_own_group_and_no_other(backend, name, updates):
    whole = new(name, updates)
    generators = GENERATORS[name]
    seen = set()
    for number, iteration in enumerate(whole.schedule):
        for position, update in enumerate(iteration):
            seen.add(update.group)
            # A system of its own, since a loss speaks of the networks that it was built with.
            fresh = new(name, updates)
            found, _, losses = run(backend, fresh, ((fresh.schedule[number][position],),))
            expected = generators if update.group == "generator" else set(whole.networks) - generators
            assert found == expected, f"update {position} of {update.group}"
            assert all(np.isfinite(value) for value in losses.values())
    assert seen == {"generator", "discriminator"}


def updates_of(system):
    return {update.group: update for update in system.schedule[0]}


def network_weights(state, networks):
    return {name: value for name, value in state.items() if name.split("/")[0] in networks}


def equal(one, other):
    assert one.keys() == other.keys()
    return all((one[name] == other[name]).all() for name in one)


def test_together_updates_the_generator_against_the_discriminator_that_has_changed(backend):
    system = new("pix2pix", "together")
    _, both, _ = run(backend, system)
    alone = new("pix2pix", "together")
    _, generator_alone, _ = run(backend, alone, ((updates_of(alone)["generator"],),))
    assert not equal(network_weights(both, {"generator"}), network_weights(generator_alone, {"generator"}))


def test_simultaneous_updates_each_against_the_other_as_it_was(backend):
    _, both, _ = run(backend, new("pix2pix", "simultaneous"))
    one = new("pix2pix", "simultaneous")
    _, generator_alone, _ = run(backend, one, ((updates_of(one)["generator"],),))
    two = new("pix2pix", "simultaneous")
    _, discriminator_alone, _ = run(backend, two, ((updates_of(two)["discriminator"],),))
    assert equal(network_weights(both, {"generator"}), network_weights(generator_alone, {"generator"}))
    assert equal(network_weights(both, {"discriminator"}), network_weights(discriminator_alone, {"discriminator"}))


def groups(system):
    return [[update.group for update in iteration] for iteration in system.schedule]


def test_order_of_updates():
    D, G = "discriminator", "generator"
    assert groups(new("pix2pix", "together")) == [[D, G]]
    assert groups(new("pix2pix", "simultaneous")) == [[G, D]]
    assert groups(new("pix2pix", "separate")) == [[D, D, G]]
    assert groups(new("pix2pix", "alternate")) == [[D, G], [D, G]]
    assert groups(new("cyclegan", "together")) == [[G, D]]
    assert groups(new("cyclegan", "separate")) == [[D, D, G]]
    assert groups(new("cyclegan", "alternate")) == [[G, D], [G, D]]
    assert groups(new("pix2pix", "together", discriminator_updates=3)) == [[D], [D], [D, G]]
    assert groups(new("cyclegan", "together", discriminator_updates=2)) == [[D], [G, D]]
    # Two kinds of updates of D, each third iteration with G: the cycle closes after six.
    assert groups(new("pix2pix", "alternate", discriminator_updates=3)) == [[D], [D], [D, G]] * 2


@pytest.mark.parametrize("name", GENERATORS)
def test_three_discriminator_updates_for_each_one_of_the_generator(backend, name):
    step = make_step(backend, new(name, loss={"gan": "wgangp"}, discriminator_updates=3))
    discriminators, states = set(step.system.networks) - GENERATORS[name], [step.state()]
    told = []
    for number in range(6):
        names, losses = step.run(number, 1, 0.1)
        told.append(any(loss.startswith("g_") for loss in names))
        assert any(loss.startswith("d_") for loss in names) and np.isfinite(losses).all()
        states.append(step.state())
    found = [changed(before, after) for before, after in pairwise(states)]
    both = discriminators | GENERATORS[name]
    assert found == [discriminators, discriminators, both] * 2
    assert told == [False, False, True] * 2
    # The generator's Adam has seen two updates, the discriminator's six.
    power = 0.5 * np.float32(1)
    assert states[-1]["adam/generator/beta_1_power"] == power**3
    assert states[-1]["adam/discriminator/beta_1_power"] == power**7


def test_a_block_ends_where_the_next_iteration_has_other_updates(backend):
    step = make_step(backend, new("pix2pix", discriminator_updates=3))
    assert [len(step.run(first, 25, 0.1)[1]) for first in (0, 2, 3, 5)] == [2, 1, 2, 1]
    asked = []
    names, losses = make_step(backend, new("pix2pix")).run(4, 25, 0.1, lambda done: asked.append(done) or done < 7)
    assert asked == [5, 6, 7] and losses.shape == (3, len(names)) and losses.dtype == np.float32


@pytest.mark.parametrize("schedule", [((),), (("other",),), (("generator", "generator"),)])
def test_a_schedule_that_no_step_can_run_is_refused(schedule):
    updates = tuple(tuple(Update(group, lambda *given: None) for group in iteration) for iteration in schedule)
    with pytest.raises(ValueError, match="an iteration updates"):
        System({}, {"generator": ()}, {}, lambda batch: {}, updates)


def test_two_updates_that_report_one_name_are_refused_and_one_that_runs_twice_is_not(backend):
    system = new("pix2pix")
    update = updates_of(system)["discriminator"]
    twice = dataclasses.replace(system, schedule=((update, update),))
    names, losses = make_step(backend, twice).run(0, 1, 0.1)
    assert names and np.isfinite(losses).all()
    other = Update("discriminator", lambda *given: update.loss(*given))
    with pytest.raises(ValueError, match="two updates of an iteration report the loss 'd_"):
        make_step(backend, dataclasses.replace(system, schedule=((update, other),))).run(0, 1, 0.1)


def test_alternate_scores_real_images_first_then_generated_ones(backend):
    step = make_step(backend, new("pix2pix", "alternate"))
    names, losses = step.run(0, 2, 0.1)
    assert "d_real" in names and "d_fake" not in names and len(losses) == 1
    names, _ = step.run(1, 2, 0.1)
    assert "d_fake" in names and "d_real" not in names


@pytest.mark.parametrize("name", GENERATORS)
def test_gradient_penalty_is_part_of_the_loss(backend, name, monkeypatch):
    # The portable profile's own convolutions: their second derivatives are in nobody's step else.
    compiled = []

    def portable(function, *networks):
        compiled.append(networks)

        def computed(*given):
            with fixed_sums(networks):
                return function(*given)

        return computed

    monkeypatch.setattr(backend, "compile_function", portable)
    system = new(name, loss={"gan": "wgangp"})
    found, _, losses = run(backend, system)
    assert compiled and all(set(map(id, one)) == set(map(id, system.networks.values())) for one in compiled)
    assert len(found) == {"pix2pix": 2, "cyclegan": 4}[name]
    penalties = {key: value for key, value in losses.items() if key.startswith("d_penalty")}
    assert len(penalties) == {"pix2pix": 1, "cyclegan": 2}[name]
    assert all(value > 0 for value in penalties.values())


def eager(system, channels=(3, 3)):
    generator = np.random.default_rng(0)
    source, target = (generator.uniform(-1, 1, (1, 16, 16, n)).astype(np.float32) for n in channels)
    batch = Batch(*map(ops.convert_to_tensor, (source, target)), ops.zeros((1, system.uniforms)))
    return batch, system.generate(batch)


def test_identity_is_left_out_where_channels_differ():
    equal_channels, unequal = new("cyclegan"), new("cyclegan", channels=(1, 2))
    batch, generated = eager(equal_channels)
    _, parts = updates_of(equal_channels)["generator"].loss(batch, generated, None)
    assert {"g_identity_x", "g_identity_y"} <= parts.keys()
    batch, generated = eager(unequal, (1, 2))
    assert generated["fake_y"].shape[-1] == 2 and generated["fake_x"].shape[-1] == 1
    _, parts = updates_of(unequal)["generator"].loss(batch, generated, None)
    assert sorted(parts) == ["g_cycle_x", "g_cycle_y", "g_gan_x", "g_gan_y"]


def test_losses_are_weighted_sums_of_their_parts():
    loss = {"gan": "lsgan", "gan_weight": 2.0, "cycle": 7.0, "identity": 3.0, "discriminator": 0.25}
    system = new("cyclegan", loss=loss)
    batch, generated = eager(system)
    value, p = updates_of(system)["generator"].loss(batch, generated, None)
    expected = 2 * (p["g_gan_x"] + p["g_gan_y"]) + 7 * (p["g_cycle_x"] + p["g_cycle_y"])
    assert float(value) == pytest.approx(float(expected + 3 * (p["g_identity_x"] + p["g_identity_y"])), rel=1e-6)
    value, p = updates_of(system)["discriminator"].loss(batch, generated, None)
    assert float(value) == pytest.approx(float(0.25 * sum(p.values())), rel=1e-6)
    assert float(p["d_real_x"]) != float(p["d_real_y"])

    system = new("pix2pix", loss={"l1": 11.0, "gan_weight": 3.0, "discriminator": 0.5})
    batch, generated = eager(system)
    value, p = updates_of(system)["generator"].loss(batch, generated, None)
    assert float(value) == pytest.approx(float(3 * p["g_gan"] + 11 * p["g_l1"]), rel=1e-6)
    assert float(p["g_l1"]) == pytest.approx(
        float(np.abs(np.asarray(generated["fake"]) - np.asarray(batch.target)).mean()), rel=1e-5
    )


@pytest.mark.parametrize("name", GENERATORS)
def test_r1_is_part_of_what_real_images_cost_in_every_order_of_updates(backend, name):
    for updates in UPDATES:
        system = new(name, updates, loss={"r1": 4.0, "discriminator": 0.5})
        batch, generated = eager(system)
        told = []
        for update in {id(update): update for iteration in system.schedule for update in iteration}.values():
            value, p = update.loss(batch, generated, backend._gradient)
            scores = [float(p[term]) for term in p if term.startswith(("d_real", "d_fake"))]
            slopes = [float(p[term]) for term in p if term.startswith("d_r1")]
            if scores:
                assert all(slopes) and float(value) == pytest.approx(0.5 * sum(scores) + 4 * sum(slopes), rel=1e-6)
            assert bool(slopes) == any(term.startswith("d_real") for term in p)
            told += slopes
        assert len(told) == len(system.networks) - len(GENERATORS[name]), updates


@pytest.mark.parametrize("name", GENERATORS)
def test_r1_moves_the_discriminators_alone(backend, name):
    plain, other = new(name), new(name, loss={"r1": 1.0})
    first = run(backend, plain, ((updates_of(plain)["discriminator"],),))
    found, state, losses = run(backend, other, ((updates_of(other)["discriminator"],),))
    assert found == set(plain.networks) - GENERATORS[name] and all(np.isfinite(value) for value in losses.values())
    assert not equal(network_weights(state, found), network_weights(first[1], found))


def test_cycle_goes_there_and_back():
    system = new("cyclegan")
    batch, generated = eager(system)
    G, F = system.networks["generator"], system.networks["inverse_generator"]
    np.testing.assert_allclose(np.asarray(generated["fake_y"]), np.asarray(G(batch.source)), atol=1e-6)
    np.testing.assert_allclose(np.asarray(generated["cycled_x"]), np.asarray(F(G(batch.source))), atol=1e-6)
    np.testing.assert_allclose(np.asarray(generated["cycled_y"]), np.asarray(G(F(batch.target))), atol=1e-6)
    np.testing.assert_allclose(np.asarray(generated["same_x"]), np.asarray(F(batch.source)), atol=1e-6)


def test_discriminators_see_what_the_pool_shows(backend):
    system = new("cyclegan", pool=2)
    step = make_step(backend, system)
    step.run(0, 3, 0.1)
    state = step.state()
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
    page = (Path(__file__).resolve().parents[2] / "docs" / "your-own.md").read_text(encoding="utf-8")
    code = page.split("```python\n# src/repix/systems/wgan.py\n")[1].split("```")[0]
    module: dict = {}
    exec(compile(code, "docs/your-own.md", "exec"), module)
    discriminator = {"filters": 4, "layers": 1, "norm": "none", "conditional": False}
    recipe = cells.recipe("pix2pix", discriminator=discriminator, loss={"gan": "wgangp"})
    system = module["build"](recipe, (16, 16), 3, 3)
    initialize(system.networks, "glorot", 0)
    step = make_step(backend, system)
    moved = []
    for number in range(3):
        before = step.state()
        names, losses = step.run(number, 1, 1e-3)
        after = step.state()
        moved.append(changed(before, after))
        assert np.isfinite(losses).all() and {"d_distance", "d_penalty"} <= set(names)
    assert moved == [{"discriminator"}, {"discriminator"}, {"discriminator", "generator"}]


AUGMENT = ("colour", "translation", "cutout")


def augmented(system, **changes):
    discriminator = {"filters": 4, "layers": 1, "conditional": system == "pix2pix", "augment": AUGMENT}
    return new(system, discriminator=discriminator, **changes)


@pytest.mark.parametrize("name", list(GENERATORS))
def test_each_look_of_a_discriminator_has_uniforms_of_its_own(backend, name, monkeypatch):
    seen = []

    def look(image, source, uniforms, kinds):
        assert kinds == AUGMENT and (source is not None) == (name == "pix2pix")
        seen.append(np.asarray(uniforms))
        return image, source

    monkeypatch.setattr(augmentation, "augment", look)
    system = augmented(name)
    batch, _ = eager(system)
    numbers = np.arange(system.uniforms, dtype=np.float32)[None] / 1000
    batch = dataclasses.replace(batch, uniforms=ops.convert_to_tensor(numbers))
    generated = system.generate(batch)
    for update in system.schedule[0]:
        update.loss(batch, generated, backend._gradient)
    looks = {"pix2pix": 3, "cyclegan": 6}[name]
    assert len(seen) == looks and all(part.shape == (1, augmentation.UNIFORMS) for part in seen)
    columns = np.concatenate([part[0] for part in seen])
    assert len(set(columns.tolist())) == looks * augmentation.UNIFORMS, "two looks share numbers"
    # The numbers of pools and penalties are others.
    assert columns.min() >= np.float32(0.003 if name == "pix2pix" else 0.005)


@pytest.mark.parametrize("name", list(GENERATORS))
def test_an_augmented_system_learns_through_the_augmentation(backend, name):
    found, _, losses = run(backend, augmented(name))
    assert found == set(new(name).networks) and all(np.isfinite(value) for value in losses.values())


def test_augmentation_is_refused_with_a_gradient_penalty():
    with pytest.raises(ValueError, match=r"not with loss\.gan: wgangp"):
        augmented("pix2pix", loss={"gan": "wgangp"})


def test_the_average_follows_the_generators_alone(backend):
    system = new("pix2pix", discriminator_updates=2)
    batch = cells.images(1, 1), cells.images(2, 1), np.full((1, system.uniforms), 0.25, np.float32)
    sampler = SimpleNamespace(steps_per_epoch=4, batch=lambda number: batch)
    step = backend.Step(system, ADAM, sampler, RANGE, RANGE, 0, 0.25)
    states = [step.state()]
    for number in range(4):
        step.run(number, 1, 0.1)
        states.append(step.state())
    kept = {name for name in states[0] if name.startswith("ema/")}
    assert kept == {f"ema/{name}" for name in states[0] if name.startswith("generator/")}
    for name in kept:
        weight = name.removeprefix("ema/")
        expected = states[0][weight]
        # Iterations 1 and 3 update the generator; the decay is at most (1 + n) / (10 + n) after n of them.
        for number, decay in ((1, 3 / 12), (3, 0.25)):
            np.testing.assert_array_equal(states[number][name], states[number - 1][name] if number > 1 else expected)
            expected = decay * expected + (1 - decay) * states[number + 1][weight]
        np.testing.assert_allclose(states[4][name], expected, rtol=1e-5, atol=1e-6)
    assert any((states[4][name] != states[4][name.removeprefix("ema/")]).any() for name in kept)
    step.restore(states[2])
    assert equal(step.state(), states[2])
