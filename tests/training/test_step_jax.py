"""The step on JAX trains as the step on TensorFlow does, and resumes to the same bits."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain, pairwise

import numpy as np
import pytest

from checks.support import cells
from repix.data import preprocess
from repix.files import digest_arrays
from tests.conftest import ROOT
from tests.training.step_jax_worker import ADAM, ADAM_STEPS, ONE, STEPS, adam, adam_data, augmented, compared, run

if find_spec("jax") is None:  # looked for, not imported: that is a second of each worker
    pytest.skip("JAX is not installed: pip install -e '.[jax]'", allow_module_level=True)

SYSTEMS = ("pix2pix", "cyclegan")


@pytest.fixture(scope="module", params=SYSTEMS)
def both(request, tmp_path_factory, library_convolutions):
    """Return (system, setup on TensorFlow after all steps, its losses, folder of what JAX left, a state, data).

    It takes as long as the compilation of JAX, which gets a process of its own: one has one Keras backend.
    """
    system, folder = request.param, tmp_path_factory.mktemp(request.param)
    counts = (("train", 5), ("val", 1), ("test", 1))
    with pytest.MonkeyPatch.context() as patch:
        if system == "cyclegan":  # as a large set has them: a file for each image
            patch.setattr(preprocess, "SHARD_BYTES", 1)
        data = cells.prepare_set(folder, paired=system == "pix2pix", counts=counts)
    setup = compared(system, data)
    parts = []
    for number in range(STEPS):
        np.savez(folder / f"other-{number}.npz", **setup.step.state())
        parts.append(run(setup.step, number, number + 1))
        if number == ONE:
            after = setup.step.state()
    losses = {name: [value for part in parts for value in part.get(name, ())] for name in sorted({*chain(*parts)})}
    run_worker(system, data, folder, 0)
    return system, setup, losses, folder, after, data


def run_worker(system, data, folder, first):
    """Run on JAX in a process of its own; compiled programs are kept for the next one."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "tests.training.step_jax_worker", system, str(data), str(folder), str(first)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr


def load(path):
    return dict(np.load(path))


def test_both_steps_meet_the_protocol():
    from repix.training import step_jax, step_tensorflow
    from repix.training.step import Step

    for name in ("run", "state", "restore"):
        wanted = inspect.signature(getattr(Step, name))
        for backend in (step_jax, step_tensorflow):
            assert inspect.signature(getattr(backend.Step, name)) == wanted
    assert inspect.signature(step_jax.Step) == inspect.signature(step_tensorflow.Step)


def test_the_same_training(both):
    system, setup, losses, folder, after, _ = both
    found = load(folder / "losses.npz")
    assert found.keys() == losses.keys()
    followed = load(folder / "followed.npz")
    for name, values in losses.items():
        assert len(values) == (STEPS // 3 if system == "pix2pix" and name.startswith("g_") else STEPS)
        assert np.ptp(values) > 1e-4, "the losses do not change: nothing is compared"
        # Each iteration from the state in which the other backend began it.
        np.testing.assert_allclose(followed[name], values, rtol=0, atol=1e-5, err_msg=name)
        # And all of them on their own, which part once rounding has grown.
        early = len(values) * 2 // 5
        np.testing.assert_allclose(found[name][:early], values[:early], rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-2, err_msg=name)

    # One iteration from the same state: pools included. Of the gradient of a bias before a norm, which is 0, Adam's
    # means hold rounding alone.
    stepped, before = load(folder / "other-after.npz"), load(folder / f"other-{ONE}.npz")
    assert stepped.keys() == after.keys()
    for name, array in after.items():
        change = np.abs(array - before[name]).max()
        noise = 4e-6 if name.startswith("adam/") and name.endswith("/bias") else 1e-6
        np.testing.assert_allclose(stepped[name], array, rtol=1e-4, atol=noise + 1e-3 * change, err_msg=name)
    assert any(np.abs(after[name] - before[name]).max() > 1e-4 for name in after if name.startswith("generator/"))

    # Its weights translate under TensorFlow as they did under JAX.
    setup.step.restore(load(folder / "compared-20.npz"))
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    shown = load(folder / "translations.npz")
    assert shown.keys() == setup.translators.keys()
    for name, translator in setup.translators.items():
        difference = np.abs(translator.translate(image).astype(int) - shown[name])
        assert difference.max() <= 1 and difference.mean() < 0.01


def test_a_discriminator_sees_the_same_augmented_images(both):
    np.testing.assert_allclose(load(both[3] / "masks.npz")["augmented"], augmented(), rtol=0, atol=1e-6)


def test_three_discriminator_updates_for_each_one_of_the_generator(both):
    system, _, _, folder, *_ = both
    states = [load(folder / f"compared-{number}.npz") for number in range(4)]
    changed = [
        {
            name.split("/")[0]
            for name in one
            if not name.startswith(("adam/", "pool/", "ema/")) and (one[name] != two[name]).any()
        }
        for one, two in pairwise(states)
    ]
    if system == "pix2pix":
        assert changed == [{"discriminator"}, {"discriminator"}, {"discriminator", "generator"}]
    else:
        assert all(len(networks) == 4 for networks in changed)


def test_dropout_is_a_function_of_key_and_counter(both):
    first, _, again, *others = load(both[3] / "masks.npz")["masks"]
    assert set(np.unique(first)) == {0.0, 2.0} and 0.42 < (first == 0).mean() < 0.58
    np.testing.assert_array_equal(first, again)
    assert all((first != other).any() for other in others)


def torch_adam():
    """Return the weights that torch.optim.Adam gives on the case of :func:`adam`."""
    import torch

    first, sources = adam_data()
    weights, found = torch.nn.Parameter(torch.tensor(first)), []
    betas = (ADAM["beta_1"], ADAM["beta_2"])
    optimizer = torch.optim.Adam([weights], lr=ADAM["learning_rate"], betas=betas, eps=ADAM["epsilon"])
    for number in range(ADAM_STEPS):
        source = torch.tensor(sources[number].astype(np.float32)) * (2 / 255) - 1
        optimizer.zero_grad()
        ((source @ weights + 1) ** 2).mean().backward()
        optimizer.step()
        found.append(weights.detach().numpy().copy())
    return np.stack(found)


@pytest.mark.parametrize("both", ["pix2pix"], indirect=True)  # what the worker computes for it is the same for both
def test_epsilon_is_added_where_torch_adds_it_or_where_tensorflow_does(both):
    expected, on_jax = torch_adam(), load(both[3] / "adam.npz")
    for corrected, hat in ((adam(False), adam(True)), (on_jax["corrected"], on_jax["hat"])):
        np.testing.assert_allclose(corrected, expected, rtol=0, atol=2e-6)
        assert np.abs(hat - expected).max() > 1e-3, "the two forms are too near to tell them apart"
    np.testing.assert_allclose(on_jax["hat"], adam(True), rtol=0, atol=2e-6)


def test_stopped_and_resumed_is_bit_for_bit_the_same(both):
    system, _, _, folder, _, data = both
    whole = digest_arrays(load(folder / "state-20.npz"))
    assert digest_arrays(load(folder / "again.npz")) == whole
    assert digest_arrays(load(folder / "state-7.npz")) != whole
    if system == "pix2pix":
        # A data set that lies on the device gives the same batches.
        assert digest_arrays(load(folder / "resident.npz")) == whole
        run_worker(system, data, folder, 7)  # in another process
        assert digest_arrays(load(folder / "resumed.npz")) == whole
