"""The image pool against the same rule in plain Python."""

import numpy as np
import pytest

from repix.systems.system import Pool


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
