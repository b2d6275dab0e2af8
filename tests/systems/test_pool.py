"""The image pool against the same rule in plain Python, and what pix2pix keeps in it."""

import numpy as np
import pytest
from keras import ops

from checks.support import cells
from repix.models.initialization import initialize, weights
from repix.systems.system import Batch, Pool, build


class PlainPool:
    """Shrivastava et al. 2017, as CycleGAN's code keeps it: fill, then show new or stored, half of the time each."""

    def __init__(self, size):
        self.size, self.kept = size, []

    def show(self, images, uniforms):
        shown = []
        for image, (place, swap) in zip(images, uniforms, strict=True):
            if len(self.kept) < self.size:
                self.kept.append(image)
                shown.append(image)
            elif swap > 0.5:
                place = int(place * self.size)
                shown.append(self.kept[place])
                self.kept[place] = image
            else:
                shown.append(image)
        return np.stack(shown)


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (3, 1), (4, 3)])
def test_pool_shows_and_keeps_what_the_plain_one_does(size, batch):
    generator = np.random.default_rng(0)
    pool, plain, stored = Pool(size, (1, 2, 1), "fakes"), PlainPool(size), 0
    for number in range(12):
        new = np.arange(number * 2 * batch, (number + 1) * 2 * batch, dtype=np.float32).reshape(batch, 1, 2, 1)
        uniforms = generator.random((batch, 2), np.float32)
        shown = np.asarray(pool.show(new, uniforms))
        np.testing.assert_array_equal(shown, plain.show(new, uniforms))
        stored += int((shown != new).any())
        assert int(pool.count) == len(plain.kept)
        np.testing.assert_array_equal(np.asarray(pool.images)[: len(plain.kept)], np.stack(plain.kept))
    assert stored, "the uniforms never showed a stored image: the test would prove nothing"


def test_pool_shows_the_new_image_until_it_is_full():
    pool = Pool(2, (1, 1, 1), "fakes")
    for value in (1.0, 2.0):
        shown = pool.show(np.full((1, 1, 1, 1), value, np.float32), np.float32([[0.0, 0.9]]))
        assert float(np.asarray(shown).item()) == value
    shown = pool.show(np.full((1, 1, 1, 1), 3.0, np.float32), np.float32([[0.6, 0.9]]))
    assert float(np.asarray(shown).item()) == 2.0
    assert np.asarray(pool.images).ravel().tolist() == [1.0, 3.0]


# Of six iterations with a pool of two: the place and the swap that are drawn, and the iteration whose pair is shown.
# 0 and 1 fill it; 2 replaces 0; 3 is shown itself; 4 replaces 1; 5 replaces 2.
DRAWS = [(0.9, 0.9), (0.1, 0.9), (0.2, 0.9), (0.6, 0.1), (0.7, 0.9), (0.3, 0.6)]
SHOWN = [0, 1, 0, 3, 1, 2]


def pix2pix(pool=2, conditional=True, gan="vanilla"):
    """Return a system whose discriminator is three products, its update on generated images, and six batches."""
    discriminator = {"kind": "pixel", "filters": 2, "norm": "none", "conditional": conditional}
    updates = "together" if gan == "wgangp" else "separate"
    recipe = cells.recipe(pool=pool, discriminator=discriminator, updates=updates, loss={"gan": gan})
    system = build(recipe, (16, 16), 1, 2, paired=True)
    initialize(system.networks, "glorot", 3)
    generator = np.random.default_rng(5)
    batches = []
    for place, swap in DRAWS:
        source, target, fake = (generator.uniform(-1, 1, (1, 16, 16, n)).astype(np.float32) for n in (1, 2, 2))
        uniforms = np.float32([[0.25, place, swap]])
        batch = Batch(*map(ops.convert_to_tensor, (source, target, uniforms)))
        batches.append((batch, {"fake": ops.convert_to_tensor(fake)}))
    update = [update for update in system.schedule[0] if update.group == "discriminator"][-1]
    return system, update, batches


def gradient(function, x):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


@pytest.mark.parametrize("conditional", [True, False])
def test_a_pooled_image_is_shown_beside_its_own_source(conditional):
    system, update, batches = pix2pix(conditional=conditional)
    D = system.networks["discriminator"]
    for number, (batch, generated) in enumerate(batches):
        _, terms = update.loss(batch, generated, None)
        then, fake = batches[SHOWN[number]][0], batches[SHOWN[number]][1]["fake"]
        scores = D([then.source, fake] if conditional else fake)
        assert float(terms["d_fake"]) == pytest.approx(float(ops.mean(ops.softplus(scores))), rel=1e-6), number


def test_a_pool_of_pairs_is_that_of_the_pytorch_code():
    import torch

    functional = torch.nn.functional
    system, update, batches = pix2pix()
    named = weights("discriminator", system.networks["discriminator"])
    values = {name.removeprefix("discriminator/"): torch.tensor(np.array(v)) for name, v in named.items()}

    def score(pair):
        for number in (1, 2, 3):
            kernel, bias = values[f"conv{number}/kernel"].permute(3, 2, 0, 1), values.get(f"conv{number}/bias")
            pair = functional.conv2d(pair, kernel, bias)
            pair = functional.leaky_relu(pair, 0.2) if number < 3 else pair
        return pair

    def tensor(array):
        return torch.tensor(np.array(array)).permute(0, 3, 1, 2)

    kept = []
    for (batch, generated), (place, swap) in zip(batches, DRAWS, strict=True):
        pair = torch.cat((tensor(batch.source), tensor(generated["fake"])), 1)
        if len(kept) < 2:
            kept.append(pair)
        elif swap > 0.5:
            kept[int(place * 2)], pair = pair, kept[int(place * 2)]
        scores = score(pair)
        loss = functional.binary_cross_entropy_with_logits(scores, torch.zeros_like(scores))
        _, terms = update.loss(batch, generated, None)
        assert float(terms["d_fake"]) == pytest.approx(float(loss), rel=1e-5)


def test_the_penalty_lies_between_two_pairs():
    system, update, batches = pix2pix(gan="wgangp")
    D = system.networks["discriminator"]
    for number, (batch, generated) in enumerate(batches):
        _, terms = update.loss(batch, generated, gradient)
        then, fake = batches[SHOWN[number]][0], batches[SHOWN[number]][1]["fake"]
        source = 0.75 * batch.source + 0.25 * then.source
        slopes = gradient(lambda x, s=source: ops.sum(D([s, x])), 0.75 * batch.target + 0.25 * fake)
        expected = (np.sqrt(np.square(np.asarray(slopes)).sum()) - 1) ** 2
        assert float(terms["d_penalty"]) == pytest.approx(expected, rel=1e-4), number
