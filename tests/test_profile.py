"""The environment is what the profile says before anything heavy is imported, and no process starts again twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from repix import profile, stage
from repix.errors import UserError
from tests.conftest import ROOT


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process to which no profile has come yet."""
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=60)


def test_entering_sets_the_environment_and_starts_again_once():
    code = """
import json, os, sys
print("started", flush=True)
from repix import profile
name = profile.enter("portable").name
assert not {"numpy", "tensorflow", "keras"} & sys.modules.keys()
print(json.dumps([name, sys.argv[1:], sys.flags.hash_randomization, os.environ["TF_NUM_INTRAOP_THREADS"]]))
print(json.dumps({key: os.environ.get(key) for key in profile.find("portable").environment()}))
"""
    ended = python(code, "a b", "--c", TF_XLA_FLAGS="--tf_xla_auto_jit=2", NPY_ENABLE_CPU_FEATURES="AVX2")
    assert ended.returncode == 0, ended.stderr
    *starts, result, environment = ended.stdout.splitlines()
    assert starts == ["started", "started"]
    assert json.loads(result) == ["portable", ["a b", "--c"], 0, "1"]
    assert json.loads(environment) == profile.find("portable").environment()
    again = python(code, **{key: value for key, value in json.loads(environment).items() if value is not None})
    assert again.stdout.splitlines()[:-2] == ["started"]


@pytest.mark.parametrize("name", ["portable", "fast", "jax"])
def test_a_users_switches_are_not_there_once_a_profile_is_entered_and_what_is_the_users_stays(name):
    switches = {
        "ATEN_CPU_CAPABILITY": "default",
        "JAX_ENABLE_X64": "1",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_ENABLE_CPU_FEATURES": "AVX2",
        "NVIDIA_TF32_OVERRIDE": "1",
        "OMP_SCHEDULE": "dynamic",
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",  # writes a SavedModel's maps in another order
        "TF_ENABLE_LAYOUT_OPT": "0",
        "TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL": "false",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    }
    users = {
        "JAX_COMPILATION_CACHE_DIR": "/x",
        "GOMP_CPU_AFFINITY": "0",
        "JAX_CUDA_VISIBLE_DEVICES": "1",
        "JAX_PLATFORMS": "cpu",
        "KMP_DUPLICATE_LIB_OK": "TRUE",
        "KERAS_HOME": "/y",
        "NCCL_SOCKET_IFNAME": "eth0",
        "NCCL_TOPO_FILE": "/t.xml",
        "NOT_A_SWITCH_TF_X": "1",
        "ONEDNN_VERBOSE": "1",
        "TF_VAR_region": "eu",
        "XLA_CLIENT_MEM_FRACTION": ".3",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    code = f"""
import json, os
from repix import profile
profile.enter({name!r})
print(json.dumps(dict(os.environ)))
"""
    ended = python(code, **switches, **users)
    left = json.loads(ended.stdout)
    assert ended.stderr.count("unset for this run") == 1 and "ATEN_CPU_CAPABILITY, JAX_ENABLE_X64" in ended.stderr
    assert not switches.keys() & left.keys()
    assert users.items() <= left.items()


def test_what_a_library_sets_when_it_is_imported_is_no_switch_of_a_users():
    code = """
import os
from repix import profile
profile.enter("fast")
import numpy
os.environ["TF_OF_A_LIBRARY"] = "1"
print(profile.enter("fast").name)
"""
    assert python(code).stdout == "fast\n"


def test_an_environment_that_will_not_hold_is_an_error_and_no_loop():
    code = """
import os, sys
os.environ["PYTHONHASHSEED"] = "1"
print("started", flush=True)
from repix import profile
profile.enter("fast")
"""
    ended = python(code)
    assert ended.stdout.splitlines() == ["started", "started"] and ended.returncode == 1
    assert "something sets PYTHONHASHSEED whenever Python starts" in ended.stderr


def test_a_child_may_enter_another_profile():
    code = """
import os, subprocess, sys
from repix import profile
profile.enter(sys.argv[1])
print(profile.current().name, os.environ.get("NPY_DISABLE_CPU_FEATURES"), flush=True)
if sys.argv[1] == "portable":
    subprocess.run([sys.executable, *sys.orig_argv[1:3], "fast"], check=True)
"""
    ended = python(code, "portable")
    assert ended.stdout.splitlines() == ["portable X86_V4 AVX512_ICL AVX512_SPR", "fast None"], ended.stderr


def test_entering_too_late_raises():
    ended = python("import numpy; from repix import profile; profile.enter('portable')")
    assert ended.returncode == 1 and "must come before the import of numpy" in ended.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of processes")
def test_another_number_of_cores_is_no_other_profile():
    """It moves no bit: a child that has fewer is not started again, so it may have imported NumPy."""
    portable = {key: value for key, value in profile.find("portable").environment().items() if value is not None}
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy
from repix import profile
print(profile.enter("portable").tensorflow_threads())
"""
    ended = python(code, **portable)
    assert ended.stdout == "(1, 1)\n", ended.stderr


def test_an_unknown_profile_is_one_line():
    with pytest.raises(UserError) as caught:
        profile.find("portabel")
    with pytest.raises(UserError, match="5 is not an execution profile"):
        profile.find(5)
    assert (
        str(caught.value)
        == "params.yaml: run.profile: 'portabel' is not an execution profile; there are portable, fast, jax, "
        "and jax-2, jax-4, ... for so many devices"
    )


def test_portable_hides_wide_kernels_from_numpy():
    code = """
import json, sys
from repix import profile
if sys.argv[1:]:
    profile.apply(sys.argv[1])
from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched, __cpu_features__ as features
print(json.dumps([name for name in dispatched if features[name]]))
"""
    # Of the sets that NumPy has kernels for, the portable profile leaves AVX2 alone.
    assert set(json.loads(python(code, "portable").stdout)) <= {"X86_V3"}
    if set(json.loads(python(code).stdout)) <= {"X86_V3"}:
        pytest.skip("this CPU has no AVX-512 to hide")


def test_portable_hides_wide_kernels_from_pytorch_and_leaves_them_to_tensorflow():
    code = """
import hashlib, os, sys
from repix import profile
profile.apply("portable")
assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE"
if sys.argv[1] == "never":
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
if sys.argv[1] == "settled":
    profile.settle_torch()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE"
import torch
torch.set_num_threads(2)
seed, digest = torch.Generator().manual_seed(0), hashlib.sha256()
for channels, filters, side in ((3, 32, 3), (64, 96, 3), (160, 192, 7), (192, 192, 7), (288, 384, 3), (768, 160, 1)):
    image = torch.randn(2, channels, 17, 17, generator=seed).contiguous(memory_format=torch.channels_last)
    made = torch.nn.functional.conv2d(image, torch.randn(filters, channels, side, side, generator=seed))
    digest.update(made.numpy().tobytes())
print(digest.hexdigest())
"""
    with ThreadPoolExecutor(2) as pool:
        ways = ("never", "settled", "not settled")
        never, settled, other = pool.map(lambda way: python(code, way).stdout, ways)
    assert settled == never != ""
    if profile.cpu_has("avx512f"):
        assert other != never, "PyTorch adds up alike with AVX-512: nothing to settle"


def test_the_thread_count_is_recorded():
    portable = profile.find("portable")
    assert portable.record()["threads"] == 2 and portable.record()["operation_threads"] == 1
    assert portable.tensorflow_threads() == (1, min(16, len(os.sched_getaffinity(0))))
    assert portable.environment()["TF_NUM_INTEROP_THREADS"] is None
    assert portable.environment()["TF_NUM_INTRAOP_THREADS"] == "1"
    assert portable.environment()["OMP_NUM_THREADS"] == "2"
    fast = profile.find("fast")
    assert fast.record()["threads"] == len(os.sched_getaffinity(0)) == fast.resolved_threads()
    assert fast.environment()["TF_NUM_INTRAOP_THREADS"] == str(fast.resolved_threads())
    assert fast.tensorflow_threads() == (fast.resolved_threads(), min(2, len(os.sched_getaffinity(0))))
    assert fast.environment()["TF_NUM_INTEROP_THREADS"] is None
    assert set(fast.record()) >= {"name", "backend", "onednn", "isa", "numpy_disable", "openblas_core", "portable"}


def test_how_many_operations_run_at_once_moves_no_bit():
    """Of the profile that promises no bits elsewhere, but the same ones here: weights, moments and averages."""
    code = """
import hashlib, sys
from repix import profile
threads = profile.Profile.tensorflow_threads
profile.Profile.tensorflow_threads = lambda self: (threads(self)[0], int(sys.argv[1]))
profile.apply("fast")
from checks.support.steps import built_step
import tensorflow as tf
step, _ = built_step("pix2pix_plus", 32, 1, "float32", filters=8)
step.run(0, 1, 2e-4)
step.run(1, 1, 2e-4)
digest = hashlib.sha256()
for name, array in sorted(step.state().items()):
    digest.update(array.tobytes())
print(tf.config.threading.get_inter_op_parallelism_threads(), digest.hexdigest())
"""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    with ThreadPoolExecutor(2) as two:
        ended = list(two.map(lambda number: python(code, number, PYTHONPATH=paths), "13"))
    (one, digest), (three, other) = (each.stdout.split() for each in ended)
    assert (one, three) == ("1", "3") and digest == other, ended


def test_cores_are_counted_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert profile.find("fast").resolved_threads() == os.cpu_count()


def test_leaving_means_that_none_is_in_force(monkeypatch):
    monkeypatch.setenv("REPIX_PROFILE", "portable")
    assert profile.entered().name == "portable"
    profile.leave()
    assert profile.entered() is None and profile.current().name == "fast"


def test_a_users_keras_json_has_no_say(tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first", "floatx": "float16"}')
    code = """
import keras
from repix.inference.backend import backend_module
print(keras.config.image_data_format(), keras.config.floatx())
backend_module()
print(keras.config.image_data_format(), keras.config.floatx())
"""
    ended = python(code, KERAS_HOME=str(tmp_path), KERAS_BACKEND="tensorflow")
    assert ended.stdout.splitlines() == ["channels_first float16", "channels_last float32"], ended.stderr


def test_a_keras_json_that_keras_refuses_is_named(tmp_path):
    code = """
from repix import profile, stage
profile.enter("portable")
from repix.libraries import import_keras
stage.guard(import_keras)
"""
    for said in ('{"floatx": "float7"}', '{"nnx_enabled": true}', "[]", '{"floatx": []}'):
        (tmp_path / "keras.json").write_text(said)
        ended = python(code, KERAS_HOME=str(tmp_path))
        assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
        assert ended.stderr.splitlines()[-1].startswith(f"repix: {tmp_path}/keras.json: Keras refuses it (")
    (tmp_path / "keras.json").write_text("{}")
    broken = "raise ValueError"  # another file of that name
    (tmp_path / "absl").mkdir()
    (tmp_path / "absl" / "__init__.py").write_text("from absl import config")
    (tmp_path / "absl" / "config.py").write_text(broken)
    ended = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}", KERAS_HOME=str(tmp_path))
    assert "Traceback" in ended.stderr and "Keras refuses" not in ended.stderr  # keeps its traceback


def test_portable_computes_the_graph_that_was_written():
    """Grappler makes x / sqrt(v) an rsqrt and 1 / v a reciprocal: approximations of the CPU at hand."""
    code = """
import sys
from repix import profile
profile.apply(sys.argv[1])
from repix.libraries import import_keras
import_keras()
import numpy as np
from repix.inference.backend import backend_module
compiled = backend_module().compile_function
draw = np.random.default_rng(0)
x, v = (draw.uniform(0.01, 9, 4096).astype("float32") for _ in range(2))
import keras
print((compiled(lambda a, b: a / keras.ops.sqrt(b))(x, v).numpy() == x / np.sqrt(v)).all(),
      (compiled(lambda a: 1.0 / a)(v).numpy() == np.float32(1) / v).all())
"""
    ended = python(code, "portable")
    assert ended.stdout.split() == ["True", "True"], ended.stderr
    # What the portable profile is protected from; when this goes green, TensorFlow has changed.
    assert "False" in python(code, "fast").stdout.split()


def test_the_number_of_devices_is_part_of_the_profile():
    four = profile.find("jax-4")
    assert four.record() == profile.find("jax").record() | {"name": "jax-4", "shards": 4, "threads": 4}
    assert four.after_training() == "fast"
    # NCCL would choose by what it finds; one device adds nothing up, and a user's own choice is not ours to carry.
    # Some sums of XLA's follow its threads, which would be the cores, or the devices of a process.
    assert four.environment()["PJRT_NPROC"] == "4"
    assert all(profile.find(name).environment()["PJRT_NPROC"] is None for name in ("jax", "jax-1", "fast"))
    assert four.environment()["NCCL_ALGO"] == "Ring" and profile.find("jax").environment()["NCCL_ALGO"] is None
    for name in ("jax-0", "jax-", "jax-04", "jax-x", "fast-2", "jax-4\n"):
        with pytest.raises(UserError, match="is not an execution profile"):
            profile.find(name)


def test_jax_trains_and_nothing_else(monkeypatch):
    jax = profile.find("jax")
    assert jax.environment()["KERAS_BACKEND"] == "jax" and jax.record()["backend"] == "jax"
    assert "--xla_gpu_deterministic_ops=true" in jax.environment()["XLA_FLAGS"].split()
    assert profile.find(jax.after_training()).backend == "tensorflow"
    assert [profile.find(name).after_training() for name in ("portable", "fast")] == ["portable", "fast"]

    entered = []
    monkeypatch.setattr(profile, "enter", entered.append)
    monkeypatch.setattr(stage, "import_keras", lambda: None)
    monkeypatch.setattr(
        stage.reader, "read", lambda section, kind: kind(datasets=("a",), models=("b",), seeds=(0,), profile="jax")
    )
    monkeypatch.setattr(stage.reader, "section", lambda name: {"profile": "fast"})
    for trains in (True, False):
        stage._enter_and_call(lambda cell: None, {"dataset": "a", "model": "b", "seed": "0"}, True, trains)
    assert entered == ["jax", "fast"]


def test_a_backend_that_is_not_installed_is_one_line():
    code = """
import sys
sys.modules["jax"] = None  # what Python finds where it is not installed
from repix import profile, stage
from repix.libraries import import_keras
profile.apply("jax")
stage.guard(import_keras)
"""
    ended = python(code)
    assert ended.returncode == 1 and ended.stderr.splitlines() == [
        "repix: the profile jax needs JAX: pip install -c constraints.txt -e '.[jax]', or jax-cuda for jax on a GPU"
    ]
