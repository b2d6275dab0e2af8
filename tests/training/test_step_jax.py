"""The step on JAX plays the game that the step on TensorFlow plays, and resumes to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from checks.support import cells
from repix.files import digest_arrays
from tests.conftest import ROOT
from tests.training.step_jax_worker import STEPS, game_of, play

pytest.importorskip("jax", reason="JAX is not installed: pip install -e '.[jax]'")

SYSTEMS = ("pix2pix", "cyclegan")


@pytest.fixture(scope="module", params=SYSTEMS)
def both(request, tmp_path_factory):
    """Return (system, game on TensorFlow after all steps, its losses, folder of what JAX left)."""
    system, folder = request.param, tmp_path_factory.mktemp(request.param)
    counts = (("train", 5), ("val", 1), ("test", 1))
    data = cells.prepare_set(folder, paired=system == "pix2pix", counts=counts)
    game = game_of(system, data)
    losses = play(game, 0, 7)
    np.savez(folder / "other-7.npz", **game.step.state())
    losses = [losses, play(game, 7, 8)]
    after = game.step.state()
    losses = np.concatenate([*losses, play(game, 8, STEPS)])
    run_worker(system, data, folder, 0)
    return system, game, losses, folder, after, data


def run_worker(system, data, folder, first):
    """Play on JAX in a process of its own; compiled programs are kept for the next one."""
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


def test_the_same_game(both):
    _, game, losses, folder, after, _ = both
    found = load(folder / "losses.npz")
    assert found["names"].tolist() == game.step.losses
    assert losses.shape == (STEPS, len(game.step.losses)) and np.ptp(losses[:, 0]) > 1e-3
    np.testing.assert_allclose(found["losses"], losses, rtol=0, atol=1e-4)

    # One iteration from the same state, before rounding has grown: dropout masks and pools included.
    stepped, before = load(folder / "other-8.npz"), load(folder / "other-7.npz")
    assert stepped.keys() == after.keys()
    for name, array in after.items():
        moved = np.abs(array - before[name]).max()
        np.testing.assert_allclose(stepped[name], array, rtol=1e-4, atol=1e-6 + 1e-3 * moved, err_msg=name)
    assert any(np.abs(after[name] - before[name]).max() > 1e-4 for name in after if name.startswith("generator/"))

    # Its weights translate under TensorFlow as they did under JAX.
    game.step.restore(load(folder / "state-20.npz"))
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    shown = load(folder / "translations.npz")
    assert shown.keys() == game.translators.keys()
    for name, translator in game.translators.items():
        difference = np.abs(translator.translate(image).astype(int) - shown[name])
        assert difference.max() <= 1 and difference.mean() < 0.01


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
