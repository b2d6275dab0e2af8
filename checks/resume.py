"""Kill a training again and again, resume it, and compare its bits with those of an uninterrupted one.

    python -m checks.resume --system pix2pix --kills 20 --sigterm 5
    python -m checks.resume --system cyclegan --checks
    python -m checks.resume --system pix2pix_plus --kills 20

A tiny training (dropout, image pool, falling learning rate, validation) runs in processes of
its own. They are killed at random steps (the seed says which), some of them while a checkpoint is being
written, and started again until the training is done. Compared are all weights, Adam's state,
the pools, the best weights and the loss table; the systems ``..._plus`` have a moving average of
the generators' weights too, and a discriminator that sees augmented images. ``--checks`` damages
checkpoints (a flipped byte, a truncated file, another run's file) and fills a small disk (tmpfs; needs root).
Prints a table and JSON; exit code 1 unless everything is equal.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from repix import profile, stage

EPOCHS, PAIRS = 12, 10
STEPS = EPOCHS * PAIRS
PARTS = ("state", "best", "losses")
SYSTEMS = ("pix2pix", "cyclegan", "pix2pix_plus", "cyclegan_plus")


def work(system: str, root: Path, checkpoints: Path, save_seconds: float) -> None:
    """Train in this process, saying each step; write the digests of what came out."""
    profile.enter("portable")
    from repix.libraries import import_keras

    import_keras()
    from checks.support import cells
    from repix.cells import Cell
    from repix.data.prepared import Prepared
    from repix.evaluation.validation import Validation
    from repix.files import canonical_json, digest_arrays, digest_text, write_json
    from repix.training import loop
    from repix.training.checkpoint import Checkpoints
    from repix.training.observer import Observer
    from repix.training.setup import set_up

    class Teller(Observer):
        def step_done(self, step: int) -> None:
            print(step, flush=True)

    loop.SAVE_SECONDS = save_seconds
    system, _, plus = system.partition("_")
    recipe = cells.recipe(system, pool=3, epochs=EPOCHS, decay_epochs=6, validate_every=2, checkpoint_every=3)
    if plus:
        augmented = recipe.discriminator.model_copy(update={"augment": ("colour", "translation", "cutout")})
        recipe = recipe.model_copy(update={"ema": 0.99, "discriminator": augmented})
    prepared = Prepared.open(root / "prepared")
    setup = set_up(Cell("tiny", system, 0), recipe, prepared, flip=True)
    history, best = loop.train(
        setup.step,
        recipe,
        checkpoints=Checkpoints(checkpoints, "tiny"),
        observer=Teller(),
        validate=Validation(prepared, setup.translators, Observer().pictures).score,
        best_of=setup.translator_weights,
    )
    rows = {"epochs": history.epochs, "best": history.best}
    digests = (digest_arrays(setup.step.state()), digest_arrays(best), digest_text(canonical_json(rows)))
    write_json(root / "result.json", dict(zip(PARTS, digests, strict=True)))


def prepare_data(system: str, root: Path) -> None:
    """Write the tiny data set that all trainings share."""
    from checks.support import cells

    cells.prepare_set(root, paired=system.startswith("pix2pix"), counts=(("train", PAIRS), ("val", 2), ("test", 1)))


def run(system, root, *, at=None, number=signal.SIGKILL, delay=0.0, save_seconds=600.0, checkpoints=None):
    """Run the training in a process; send it a signal ``delay`` seconds after step ``at``.

    Returns:
        Exit code, last step it told of, and what it said on standard error.
    """
    (root / "result.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "checks.resume", "--worker", str(root), "--system", system]
    command += ["--save-seconds", str(save_seconds), "--checkpoints", str(checkpoints or root / "checkpoints")]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        last = 0
        for line in process.stdout:
            last = int(line)
            if at is not None and last >= at:
                time.sleep(delay)
                process.send_signal(number)
                at = None
        code = process.wait()
        said.seek(0)
        return code, last, said.read()


def result(root: Path) -> dict:
    """Return the digests that a finished training wrote; empty if there are none."""
    path = root / "result.json"
    return json.loads(path.read_text()) if path.exists() else {}


def kills(system: str, root: Path, expected: dict, chance: random.Random, signals: list[int]) -> list[dict]:
    """Kill a training with each of the signals in turn, then let it finish; return a row for each process."""
    steps = sorted(chance.sample(range(1, STEPS - 1), len(signals)))
    rows = []
    for at, number in zip([*steps, None], [*signals, None], strict=True):
        # Saving after every step makes many kills fall into the writing of a checkpoint.
        save_seconds = chance.choice([0.0, 0.0, 0.1])
        delay = chance.uniform(0.0, 0.05)
        code, last, said = run(system, root, at=at, number=number, delay=delay, save_seconds=save_seconds)
        wanted = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM, None: 0}[number]
        leftovers = len(list((root / "checkpoints").glob("*/.*.tmp*")))
        went_on = "going on after step" in said
        sound = code == wanted and "refused" not in said and (number != signal.SIGTERM or said.count("SIGTERM") == 1)
        name = signal.Signals(number).name if number else "to the end"
        rows.append(
            {
                "signal": name,
                "step": last,
                "exit": code,
                "went_on": went_on,
                "half_written": leftovers,
                "sound": sound,
            }
        )
        print(f"{name:>11}  step {last:4d}  exit {code:4d}  half-written {leftovers}  {'ok' if sound else said[-400:]}")
    rows[-1]["sound"] &= result(root) == expected and not leftovers
    return rows


def damage(kind: str, path: Path) -> None:
    """Damage a checkpoint as ``kind`` says."""
    data = bytearray(path.read_bytes())
    if kind == "flipped byte":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        from repix.training.checkpoint import Checkpoint, Checkpoints, read_checkpoint

        found = read_checkpoint(path, "tiny")
        other = Checkpoints(path.parent.parent, "another").save(Checkpoint(found.step, found.arrays, found.extra))
        shutil.move(other, path)


def checks(system: str, root: Path, expected: dict) -> list[dict]:
    """Damage the newest checkpoint in four ways, and fill a disk; return a row for each."""
    rows = []
    for kind in ("flipped byte", "truncated", "empty", "foreign"):
        shutil.rmtree(root / "checkpoints", ignore_errors=True)
        run(system, root, at=STEPS // 2, number=signal.SIGTERM, save_seconds=0.0)
        newest = sorted((root / "checkpoints" / "tiny").glob("step-*.npz"))[-1]
        damage(kind, newest)
        code, _, said = run(system, root)
        refusals = [line for line in said.splitlines() if "refused" in line]
        sound = code == 0 and result(root) == expected and len(refusals) == 1 and newest.name in refusals[0]
        rows.append({"check": kind, "said": refusals, "sound": sound})
    rows.append(full_disk(system, root, expected))
    for row in rows:
        print(f"{row['check']:>13}  {'ok' if row['sound'] else 'NOT SOUND'}  {' | '.join(row['said'])}")
    return rows


def full_disk(system: str, root: Path, expected: dict) -> dict:
    """Train with checkpoints on a tmpfs too small for them; make room, and go on."""
    disk = root / "disk"
    disk.mkdir()
    newest = sorted((root / "checkpoints" / "tiny").glob("step-*.npz"))[-1]
    size = newest.stat().st_size * 5 // 2  # room for two, not for the third that is written beside them
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        return {"check": "full disk", "said": ["SKIPPED: mounting a tmpfs needs root"], "sound": True}
    try:
        code, _, said = run(system, root, save_seconds=0.0, checkpoints=disk)
        kept = sorted(path.name for path in (disk / "tiny").iterdir())
        lines = said.strip().splitlines()
        sound = code == 1 and len(lines) == 1 and "No space left" in lines[0] and len(kept) == 2
        subprocess.run(["mount", "-o", f"remount,size={size * 4}", str(disk)], check=True)
        code, _, again = run(system, root, save_seconds=0.0, checkpoints=disk)
        sound &= code == 0 and "going on after step" in again and result(root) == expected
        lines += again.strip().splitlines()
        return {"check": "full disk", "said": lines, "kept": kept, "exit_after": code, "sound": sound}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, default="pix2pix")
    parser.add_argument("--kills", type=int, default=0, help="how often SIGKILL is sent")
    parser.add_argument("--sigterm", type=int, default=0, help="how often SIGTERM is sent")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    parser.add_argument("--checks", action="store_true", help="damaged checkpoints and a full disk")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoints", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save-seconds", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        stage.guard(lambda: work(asked.system, asked.worker, asked.checkpoints, asked.save_seconds))
        return
    if asked.kills + asked.sigterm > STEPS - 2:
        parser.error(f"--kills and --sigterm: at most {STEPS - 2} together, one for each step")
    profile.enter("portable")
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare_data(asked.system, root)
        code, _, said = run(asked.system, root)
        expected = result(root)
        if code or not expected:
            sys.exit(f"the uninterrupted training failed:\n{said}")
        shutil.rmtree(root / "checkpoints")
        signals = [signal.SIGKILL] * asked.kills + [signal.SIGTERM] * asked.sigterm
        chance.shuffle(signals)
        killed = kills(asked.system, root, expected, chance, signals) if signals else []
        after = result(root)
        checked = checks(asked.system, root, expected) if asked.checks else []
    equal = all(row["sound"] for row in [*killed, *checked])
    record = {
        "system": asked.system,
        "seed": asked.seed,
        "steps": STEPS,
        "kills": asked.kills,
        "sigterm": asked.sigterm,
    }
    print(
        json.dumps(record | {"uninterrupted": expected, "resumed": after, "rows": [*killed, *checked], "equal": equal})
    )
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
