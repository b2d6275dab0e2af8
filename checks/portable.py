"""The same small cells on different CPUs: which bits hold, and which move.

    python -m checks.portable                 all conditions, under portable and under fast
    python -m checks.portable --quick         what CI runs: portable, one emulated CPU (CycleGAN and full sizes less)

A row is a process of its own. It runs the stages download to evaluate of one system on a few
drawn pairs (pix2pix: the sample's own networks at 64 px), or a step of the networks as the papers
have them at 64 px (``pix2pix-full``, ``cyclegan-full``), or what that route does not touch
(``other``: convolutions of odd sizes, Lab, 16 bits, HDF5, Frechet and kernel distance, Inception's
features). A condition is what the process finds on the machine; where the profile has a setting of
its own, that wins:

  native       the CPU as it is
  one-core     one core of it: operations that run at once on others run one after the other
  no-avx512    AVX-512 hidden from oneDNN, past the profile, which lets TensorFlow use it, and from NumPy, OpenBLAS,
               the C library, PyTorch and XLA
  openblas-*   OpenBLAS told to use the kernels of another CPU
  qemu-*       another CPU, emulated by qemu-user (Debian: `apt-get install qemu-user`): another name,
               other caches, no AVX-512; the row shows the name and the first cache that the process reads by CPUID
  *-48K        the same with caches that it does not have, by an emulator whose own table of them was changed: 48 KB
               and 2 MB, as Intel's CPUs since 2019. Libraries cut their sums by these sizes
  control-*    a setting that is forced past the profile, to see that the comparison can fail

Compared with the native row of the same profile and system: the digest of all trained weights,
that of the test scores, and the bytes of every out, lineage records included. Exit code 1 if a row
of the portable profile differs; 0 with a line that says so where qemu-x86_64 is not installed.

Stopped, it begins anew, but with --out FILE --again, which keeps the rows of FILE that this code made, and so lets
several add to one file.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shutil
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from checks.harness import ROOT, read_as, table, write

FULL = {"pix2pix-full": "pix2pix", "cyclegan-full": "cyclegan"}
SYSTEMS = ("pix2pix", "cyclegan", *FULL, "other")
PROFILES = ("portable", "fast")
STAGES = ("download", "unpack", "preprocess", "features", "start", "train", "evaluate")
QEMU = "qemu-x86_64"


@dataclass(frozen=True)
class Condition:
    """What a process finds that is not the machine's own.

    Attributes:
        found: environment variables of the machine; the profile's own settings win.
        forced: environment variables over those of the profile.
        cpu: name of the emulated CPU.
        larger_caches: whether the emulator tells of other caches than that CPU has.
        one_core: whether all but one of the machine's cores are kept from the process.
    """

    found: dict[str, str] = field(default_factory=dict)
    forced: dict[str, str] = field(default_factory=dict)
    cpu: str | None = None
    larger_caches: bool = False
    one_core: bool = False


CONDITIONS = {
    "native": Condition(),
    "one-core": Condition(one_core=True),
    "no-avx512": Condition(
        {
            "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
            "OPENBLAS_CORETYPE": "Haswell",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512CD,-AVX512DQ",
        },
        forced={"ONEDNN_MAX_CPU_ISA": "AVX2"},  # which the profile leaves to the CPU, up to AVX-512
    ),
    "openblas-zen": Condition({"OPENBLAS_CORETYPE": "Zen"}),
    "openblas-sandybridge": Condition({"OPENBLAS_CORETYPE": "Sandybridge"}),
    "qemu-Haswell": Condition(cpu="Haswell"),
    "qemu-EPYC": Condition(cpu="EPYC"),
    "qemu-Haswell-48K": Condition(cpu="Haswell", larger_caches=True),
    "qemu-EPYC-48K": Condition(cpu="EPYC", larger_caches=True),
    "control-openblas": Condition(forced={"OPENBLAS_CORETYPE": "Sandybridge"}),
}
QUICK = ("native", "one-core", "no-avx512", "qemu-Haswell")
# Minutes each.
QUICK_LEAVES = {("cyclegan", "qemu-Haswell"), ("pix2pix-full", "qemu-Haswell"), *(("cyclegan-full", c) for c in QUICK)}


# in the process of a row


def cpuid(leaf: int) -> bytes:
    """Return EAX, EBX, ECX and EDX of a CPUID leaf as 16 bytes (x86-64; the kernel's own list shows the host)."""
    import ctypes
    import mmap

    # push rbx; mov eax, edi; xor ecx, ecx; cpuid; mov [rsi], eax, ebx, ecx, edx; pop rbx; ret
    code = bytes.fromhex("53 89f8 31c9 0fa2 8906 895e04 894e08 89560c 5b c3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    found = ctypes.create_string_buffer(16)
    ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(address)(leaf, ctypes.addressof(found))
    return found.raw


def first_cache() -> int:
    """Return the KB of the first data cache by CPUID."""
    for leaf in (4, 0x8000001D):  # Intel's and AMD's
        eax, ebx, ecx, _ = struct.unpack("<4I", cpuid(leaf))
        if eax & 31 == 1:  # a data cache: ways, partitions, bytes of a line, sets
            return ((ebx >> 22) + 1) * ((ebx >> 12 & 1023) + 1) * ((ebx & 4095) + 1) * (ecx + 1) // 1024
    return 0


def cpu_name() -> str:
    """Return the CPU's name and first cache by CPUID, with ``emulated`` where qemu answers."""
    name = b"".join(cpuid(leaf) for leaf in (0x80000002, 0x80000003, 0x80000004)).split(b"\0")[0].decode().strip()
    emulated = ", emulated" if cpuid(0x40000000)[4:] == b"TCG" * 4 else ""
    return f"{name}{emulated}, {first_cache()} KB"


def environment(profile_name: str, condition: Condition) -> dict[str, str | None]:
    """Return the variables that the libraries of a row see; None means unset."""
    from repix import profile

    own = profile.find(profile_name).environment()
    return own | {key: value for key, value in condition.found.items() if own.get(key) is None} | condition.forced


def work(tree: Path, system: str, profile_name: str, condition: str) -> None:
    """Compute one row: run its stages in ``tree``, or the other computations; write digests to ``result.json``."""
    from repix import profile

    if CONDITIONS[condition].one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = environment(profile_name, CONDITIONS[condition])
    # What the profile leaves open is the condition's, so the start of a stage shall not undo it.
    profile.Profile.environment = lambda self: found
    if CONDITIONS[condition].cpu:
        os.execv = _no_exec
    profile.enter(profile_name)
    parts = other(tree) if system == "other" else steps_of(FULL[system]) if system in FULL else route_of(tree, system)
    from repix.files import write_json

    write_json(tree / "result.json", {"cpu": cpu_name(), "parts": parts})


def _no_exec(*_: Any) -> None:
    raise RuntimeError("starting again would leave the emulator: the environment is not the profile's")


def route_of(tree: Path, system: str) -> dict[str, str]:
    """Run the stages; return the digests of weights, of scores, and of the bytes of each out."""
    from repix.files import canonical_json, digest_text, digest_tree
    from repix.provenance.pipeline import stages
    from repix.schemas import Metrics, Trained

    os.chdir(tree)
    parts = {}
    for stage in stages(tree):
        if stage.kind in STAGES:
            sys.argv = stage.cmd.split()[1:]
            runpy.run_path(sys.argv[0], run_name="__main__")
            parts |= {out: digest_tree(tree / out) for out in stage.outs}
    trained = Trained.read(tree / f"runs/sample-{system}-0/trained.json")
    scores = Metrics.read(tree / f"metrics/sample-{system}-0.json").scores
    weights = {"last": trained.networks, "best": trained.best}
    return {
        "weights": digest_text(canonical_json(weights)),
        "scores": digest_text(canonical_json(scores)),
        "translation in floats": floats(tree / f"runs/sample-{system}-0"),
    } | parts


def floats(folder: Path) -> str:
    """Return the digest of what a trained generator says before rounding to integers hides the last bits.

    Its convolutions are those of :class:`repix.inference.translator.Translator`.
    """
    import numpy as np

    from repix.files import digest_arrays
    from repix.inference.backend import backend_module
    from repix.inference.trained import TrainedModel

    model = TrainedModel(folder)
    model.load("last")
    network = model.system.networks[model.record.translators["source_to_target"]]
    noise = np.random.default_rng(0).uniform(-1, 1, (1, *model.record.crop_size, 3)).astype(np.float32)
    said = backend_module().compile_function(lambda image: network(image, training=False), network)(noise)
    return digest_arrays({"said": np.asarray(said)})


def steps_of(system: str) -> dict[str, str]:
    """Run one step of the networks as the papers have them; return digests of the state and of the losses.

    Their sums are those of a real training, up to 8,192 numbers long: the small networks have none so long.
    """
    from checks.support.steps import built_step
    from repix.files import digest_arrays

    step, _ = built_step(system, 64, 1, "float32")
    _, losses = step.run(0, 1, 2e-4)
    return {"weights": digest_arrays(step.state()), "scores": digest_arrays({"losses": losses})}


# Side, channels, filters, kernel, stride, padding. The numbers of places are those that caches cut one way or another:
# the last layer of a ResNet at 128 px, its first at 60, the last of a PatchGAN, a stride over 17 x 17 places.
ODD = (
    (134, 64, 3, 7, 1, "valid"),
    (66, 3, 64, 7, 1, "valid"),
    (31, 64, 1, 4, 1, "same"),
    (34, 8, 16, 4, 2, "same"),
)


def odd_sums() -> dict[str, str]:
    """Return digests of convolutions of odd sizes, and of their gradients, as the portable profile computes them."""
    from repix.libraries import import_keras

    import_keras()
    import numpy as np
    import tensorflow as tf

    from repix.files import digest_arrays
    from repix.inference.tensorflow_backend import configure
    from repix.models.fixed_sums import convolution

    configure()
    chance, found = np.random.default_rng(0), {}
    for side, channels, filters, kernel, stride, padding in ODD:
        x = tf.constant(chance.standard_normal((1, side, side, channels), np.float32))
        w = tf.constant(chance.standard_normal((kernel, kernel, channels, filters), np.float32))
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = convolution(x, w, stride, padding)
            total = tf.reduce_sum(y * y)
        given = dict(zip(("y", "x", "w"), (y, *tape.gradient(total, [x, w])), strict=True))
        named = {name: np.asarray(value) for name, value in given.items()}
        found[f"convolution, {side} px, {channels} to {filters}"] = digest_arrays(named)
    return found


def other(tree: Path) -> dict[str, str]:
    """Compute what the sample's route does not touch; return a digest of each."""
    import numpy as np

    from checks.support import book
    from checks.support.inception import random_network
    from repix.data import colour, images
    from repix.evaluation.features import extract
    from repix.evaluation.frechet import Statistics, frechet_distance
    from repix.evaluation.metrics.kid import kid, kid_subsets
    from repix.files import canonical_json, digest_arrays, digest_text, digest_tree

    chance = np.random.default_rng(0)
    photos = chance.integers(0, 256, (4, 64, 64, 3), np.uint8)
    deep = chance.integers(0, 65536, (64, 64, 3), np.uint16)
    lab = np.stack([colour.rgb_to_lab(photo) for photo in photos])
    seen = np.stack([colour.lab_to_rgb(one) for one in lab])
    images.write(tree / "deep.tif", images.resize(deep, (37, 45), "bicubic"))
    book.write_book_tree(tree / "book", {"train": (photos, photos)})
    features = [np.square(chance.standard_normal((n, 64))) for n in (40, 150)]
    a, b = (Statistics.from_features(one) for one in features)
    inception = extract(photos[:2], random_network((64,)), batch_size=2)[64]
    scores = {"frechet": frechet_distance(a, b), "kid": kid(*features), "kid subsets": kid_subsets(*features)}
    return odd_sums() | {
        "scores": digest_text(canonical_json(scores)),
        "Lab": digest_arrays({"lab": lab, "rgb": seen}),
        "16-bit resize": digest_tree(tree / "deep.tif"),
        "HDF5": digest_tree(tree / "book"),
        "Inception": digest_arrays({"features": inception}),
    }


# in the process that compares


def shrunk(tree: Path, system: str, profile_name: str) -> None:
    """Put a small copy of the repository to ``tree``, with one cell of the system."""
    import yaml

    from checks.support import route

    route.copy(tree)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    size = {"pix2pix": 64, "cyclegan": 32}[system]
    url = f"synthetic:facades?size={size}&train=3&val=2&test=3&seed=0"
    route.put(params, "datasets.sample.archive", urls=[url], sha256=None)
    route.put(params, "datasets.sample.images", load_size=size + 4, crop_size=size)
    params["models"] = {system: params["models"][{"pix2pix": "pix2pix_small"}.get(system, system)]}
    model = f"models.{system}"
    if system == "cyclegan":
        route.put(params, f"{model}.generator", filters=8, blocks=2)
        route.put(params, f"{model}.discriminator", filters=8, layers=2)
        route.put(params, model, pool=2)
    route.put(params, model, epochs=2, decay_epochs=1, validate_every=1, checkpoint_every=1)
    params["run"] = {"datasets": ["sample"], "models": [system], "seeds": [0], "profile": profile_name}
    route.write_params(tree, params)


# Caches as qemu's table has them: kind (0 data, 2 both), level, bytes, bytes of a line, ways, partitions, sets.
CACHE = struct.Struct("<IBxxxIHBBI")
LARGER = {
    (0, 1, 32768, 64, 8, 1, 64): (0, 1, 49152, 64, 12, 1, 64),
    (2, 2, 2**22, 64, 16, 1, 4096): (2, 2, 2**21, 64, 16, 1, 2048),
}


def with_larger_caches(emulator: bytes) -> bytes | None:
    """Return the emulator with other caches in its table; None where it has no such table."""
    for old, new in LARGER.items():
        if CACHE.pack(*old) not in emulator:
            return None
        emulator = emulator.replace(CACHE.pack(*old), CACHE.pack(*new))
    return emulator


def emulator_for(condition: Condition, folder: Path) -> str | None:
    """Return the emulator of a condition, made in ``folder`` where its caches are not those of the CPU; or None."""
    found = shutil.which(QEMU)
    if not (found and condition.larger_caches):
        return found
    if (changed := with_larger_caches(Path(found).read_bytes())) is None:
        return None
    path = folder / QEMU
    path.write_bytes(changed)
    path.chmod(0o755)
    return str(path)


def machine() -> dict[str, str]:
    """Return the variables of this machine that a row is started with.

    A stage would start itself again without a user's switches, and by that leave the emulator.
    """
    from repix import profile

    own = ("DVC_", "MLFLOW_", "REPIX_")
    return {key: os.environ[key] for key in os.environ.keys() - profile.switches() if not key.startswith(own)}


def row(system: str, profile_name: str, condition: str, tries: int = 2) -> dict[str, Any]:
    """Run one row in a process of its own; return what it wrote and how long it took.

    The emulator itself crashes once in a while, on a busy machine, which says nothing of bits: then again.
    """
    from repix import processes

    with tempfile.TemporaryDirectory(prefix="repix-portable-") as folder:
        tree = Path(folder) / "tree"
        if system == "other" or system in FULL:
            shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shrunk(tree, system, profile_name)
        found = machine() | environment(profile_name, CONDITIONS[condition]) | CONDITIONS[condition].found
        found |= {"REPIX_TRACKING": "off", "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        # The package is the copy's, this script the repository's.
        found |= {"PYTHONPATH": os.pathsep.join([str(tree / "src"), str(ROOT)])}
        cpu = CONDITIONS[condition].cpu
        emulator = [emulator_for(CONDITIONS[condition], Path(folder)), "-cpu", cpu] if cpu else []
        command = [*emulator, sys.executable, "-m", "checks.portable"]
        command += ["--worker", str(tree), "--systems", system, "--profiles", profile_name, "--conditions", condition]
        before = time.monotonic()
        with open(Path(folder) / "said", "w+") as said:
            environ = {key: value for key, value in found.items() if value is not None}
            code = processes.run(command, env=environ, stdout=said, stderr=said)
            said.seek(0)
            if cpu and code < 0 and tries > 1:
                print(f"{profile_name} {system} {condition}: {QEMU} died of signal {-code}, once more", file=sys.stderr)
                return row(system, profile_name, condition, tries - 1)
            if code or not (tree / "result.json").is_file():
                sys.exit(f"{profile_name} {system} {condition}: exit code {code}\n{said.read()[-4000:]}")
        result = json.loads((tree / "result.json").read_text())
        emulated = "emulated" in result["cpu"]
        if emulated != bool(cpu):
            sys.exit(f"{condition}: runs on {result['cpu']}, not as the condition says")
        known = {"profile": profile_name, "system": system, "condition": condition}
        return known | result | {"seconds": round(time.monotonic() - before)}


def compare(rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return the table of one profile's rows, with what moved below it; and whether it proves that bits are equal.

    All rows but the controls are, and of each control one has moved.
    """
    from repix.files import canonical_json, digest_text

    lines, moved, equal = [], [], True
    blind = {found["condition"] for found in rows if found["condition"].startswith("control-")}
    for found in rows:
        system, condition, parts = found["system"], found["condition"], found["parts"]
        first = next(other["parts"] for other in rows if other["system"] == system)
        names = [name for name in parts if parts[name] != first[name]]
        digests = (parts.get("weights", "-"), parts["scores"], digest_text(canonical_json(parts)))
        shown = [digest[:12] for digest in digests]
        lines.append((system, condition, found["cpu"], *shown, "no" if names else "yes", found["seconds"]))
        if names:
            moved.append(f"- {system}, {condition}: {len(names)} of {len(parts)} moved: {', '.join(names[:4])}")
            equal &= condition.startswith("control-")
            blind.discard(condition)
    moved += [f"- {condition}: moved nothing, so that equal rows say nothing" for condition in sorted(blind)]
    head = ("system", "condition", "CPU by CPUID", "weights", "scores", "all bytes", "equal", "s")
    return "\n".join([table(head, lines), "", *(moved or ["all equal"])]), equal and not blind


def tables(rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return the tables of all profiles, and whether that of the portable one is equal throughout."""
    shown, equal = [], True
    places = [list(choices).index for choices in (PROFILES, SYSTEMS, CONDITIONS)]
    keys = ("profile", "system", "condition")
    rows = sorted(rows, key=lambda found: [place(found[key]) for place, key in zip(places, keys, strict=True)])
    for name in dict.fromkeys(found["profile"] for found in rows):
        compared, same = compare([found for found in rows if found["profile"] == name])
        shown.append(f"Profile `{name}`\n\n{compared}")
        equal &= same or name != "portable"
    return "\n\n".join(shown), equal


def code_digest() -> str:
    """Return a digest of what decides a row beside the machine: code, parameters, and the packages' versions."""
    from importlib.metadata import distributions

    from repix.files import canonical_json, digest_file, digest_text, digest_tree

    files = [ROOT / "params.yaml", ROOT / "dvc.yaml", ROOT / "checks" / Path(__file__).name]
    folders = [ROOT / "src" / "repix", ROOT / "stages", ROOT / "checks" / "support"]
    packages = sorted({f"{one.name} {one.version}" for one in distributions()})
    return digest_text(canonical_json([*map(digest_tree, folders), *map(digest_file, files), packages]))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows that a file has; none where there is no file.

    Raises:
        UserError: it is no file of rows.
    """
    from pydantic import ConfigDict, TypeAdapter, create_model

    if not path.exists():
        return []
    names = {"profile": PROFILES, "system": SYSTEMS, "condition": tuple(CONDITIONS)}
    fields: dict[str, Any] = {name: (Literal[choices], ...) for name, choices in names.items()}  # type: ignore[valid-type]
    fields |= {"cpu": (str, ...), "parts": (dict[str, str], ...), "seconds": (int, ...)}
    kind = create_model("Row", __config__=ConfigDict(extra="allow", strict=True), **fields)
    return read_as(path, TypeAdapter(list[kind]), "restore it, or name another with --out")


def start_file(path: Path, code: str, again: bool) -> list[dict[str, Any]]:
    """Write a file of rows to begin with, and return them: with ``again`` those that it has of this code, else none.

    Raises:
        UserError: it is no file of rows, or there can be none.
    """
    from repix.errors import UserError
    from repix.files import locked, write_json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock"), str(path)):
            there = read_rows(path)  # also where they are left out: a file of something else is not replaced
            rows = [found for found in there if again and found.get("code") == code]
            write_json(path, rows)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error}); name another with --out") from None
    if again and len(rows) < len(there):
        print(f"{path}: {len(there) - len(rows)} rows of other code are run again where asked", file=sys.stderr)
    return rows


def add_row(path: Path, found: dict[str, Any]) -> None:
    """Add a row to a file that another process may add to as well, in the place of one of its name.

    Raises:
        UserError: it is no file of rows any more.
    """
    from repix.files import locked, write_json

    with locked(path.with_name(f".{path.name}.lock"), str(path)):
        write_json(path, [other for other in read_rows(path) if key(other) != key(found)] + [found])


def key(found: dict[str, Any]) -> tuple[str, str, str]:
    """Return what names a row."""
    return found["profile"], found["system"], found["condition"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, metavar="C", help=", ".join(CONDITIONS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES))
    parser.add_argument("--quick", action="store_true", help=f"portable only; {', '.join(QUICK)}")
    parser.add_argument("--out", type=Path, help="file for the JSON, written after every row")
    parser.add_argument("--again", action="store_true", help="keep the rows that --out has, run the others")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/reproducibility.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        from repix import processes

        processes.end_with_starter()
        work(Path(given.worker), given.systems[0], given.profiles[0], given.conditions[0])
        return
    if given.again and not given.out:
        parser.error("--again keeps the rows of a file: name it with --out")
    code = code_digest()
    rows = start_file(given.out, code, given.again) if given.out else []
    asked = given.conditions or (QUICK if given.quick else CONDITIONS)
    conditions = list(dict.fromkeys(["native", *asked]))  # with whose row the others are compared
    with tempfile.TemporaryDirectory() as folder:
        left = [
            name for name in conditions if CONDITIONS[name].cpu and not emulator_for(CONDITIONS[name], Path(folder))
        ]
    known = set(map(key, rows))
    for name in ["portable"] if given.quick else given.profiles:
        for system in given.systems:
            for condition in conditions:
                if condition in left or (name, system, condition) in known:
                    continue
                if given.quick and (system, condition) in QUICK_LEAVES:
                    continue
                rows.append(row(system, name, condition) | {"code": code})
                print(f"{name} {system} {condition}: {rows[-1]['seconds']} s", file=sys.stderr, flush=True)
                if given.out:
                    add_row(given.out, rows[-1])
    if given.out:  # with what another process has added meanwhile
        rows = [found for found in read_rows(given.out) if found.get("code") == code]
    shown, equal = tables(rows)
    print(shown)
    if left:
        print(
            f"SKIPPED {', '.join(left)}: no {QEMU} (Debian: apt-get install qemu-user), or its caches cannot be changed"
        )
    if given.write:
        write("reproducibility", "portable", shown)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    if "--worker" in sys.argv:  # enters its profile before anything is imported
        main()
    else:
        from repix.stage import guard

        guard(main)
