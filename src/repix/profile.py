"""Execution profiles: how a machine computes, fixed before anything heavy is imported.

The bits that a training leaves depend on more than code, data and seed: thread counts,
the kernels that TensorFlow, NumPy and OpenBLAS pick for the CPU that they find, and the
hash seed. These are read from the environment once, when a library is first imported, so
they are set here and nowhere else. Every process of repix (stages, command line, tests,
exports) comes through :func:`enter` or :func:`apply` first, and through :func:`settle_torch`
before PyTorch computes.

Importing it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from repix.errors import UserError

# No network but the package registry: nothing here may phone home. Each is read when its library is imported.
NO_TELEMETRY = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    # onnxruntime looks up a host and keeps a device id in the cache folder unless this is set: it heeds no other.
    "ORT_DISABLE_TELEMETRY": "1",
}
# What NCCL may choose by what it finds, each choice another order of sums: fixed where devices add.
SUMS_OF_GPUS = {"NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple", "NCCL_NVLS_ENABLE": "0"}
# What the libraries that compute or write read from the environment: a user's own switches among them would move bits
# that the record says nothing of. What says where to compute, over which wires, from which caches, or how much to tell,
# is the user's all the same.
_SWITCHES = re.compile(
    "(ATEN|CUBLAS|CUDNN|DNNL|GOMP|JAX|KERAS|KMP|MKL|NCCL|NPY|NVIDIA_TF32|OMP|ONEDNN|OPENBLAS|PJRT|PROTOCOL_BUFFERS|PYTORCH"
    "|TENSORFLOW|TF|TORCH|XLA)_"
)
_USERS = re.compile(
    "|".join(
        (
            "JAX_(PLATFORMS|PLATFORM_NAME|.*VISIBLE_DEVICES|LOCAL_DEVICE.*|COORDINATOR.*|NUM_PROCESSES|PROCESS_.*)",
            "JAX_(COMPILATION_CACHE.*|PERSISTENT_CACHE.*|TRACEBACK.*|.*LOG.*)",
            "XLA_(PYTHON_)?CLIENT_.*",
            "NCCL_(COMM_ID|CONF_FILE|CROSS_NIC|CUMEM_.*|DEBUG.*|FASTRAK_.*|GPUDIRECT.*|IB_.*|NET.*|OOB_.*|P2P_.*)",
            "NCCL_(SHM_.*|SOCKET_.*|TOPO_.*|TUNER_.*)",
            "(GOMP_CPU|KMP)_AFFINITY|(KMP|OMP)_(BLOCKTIME|PLACES|PROC_BIND|WAIT_POLICY)",
            "KMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)|MKL_THREADING_LAYER",  # whether a process lives
            "TF_(CONFIG|CPP_.*LOG.*|CPP_VMODULE|FORCE_GPU_ALLOW_GROWTH|GPU_ALLOCATOR)",
            "TF_(BUILD|CLI_.*|DATA_DIR|IN_AUTOMATION|INPUT|LOG.*|PLUGIN_.*|VAR_.*|WORKSPACE)",  # not TensorFlow's
            "(DNNL|MKL|ONEDNN|OPENBLAS)_VERBOSE|(CUBLAS|CUDNN|TORCH)_LOG.*",
            "KERAS_HOME|TORCH_(HOME|EXTENSIONS_DIR)|PYTORCH_(CUDA_)?ALLOC_CONF",
        )
    )
)
_ENTERED = "REPIX_PROFILE"
_AGAIN = "REPIX_STARTED_AGAIN"


def cores() -> int:
    """Return how many CPU cores this process may use."""
    # Not everywhere can a process ask which are its own (macOS).
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_has(flag: str) -> bool | None:
    """Return whether an x86-64 CPU has a feature, by Linux's name for it; None on other CPUs, or if not told."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    with suppress(OSError, IndexError):
        return flag in re.findall(r"^flags\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)[0].split()
    return None


@dataclass(frozen=True)
class Profile:
    """What determines the bits of a result, beside code, data, parameters and seed.

    Attributes:
        name: the entry's name in ``params.yaml`` (``run.profile``).
        backend: Keras backend that trains, ``tensorflow`` or ``jax``.
        threads: CPU threads of one operation; 0 is every core that this process may use.
            Another count sums in another order, hence gives other bits.
        operation_threads: threads of one operation of TensorFlow, where they are others than ``threads``; then
            as many operations run at once as there are cores, at most 16. How many these are moves no bit.
        onednn: whether TensorFlow may rewrite operations to oneDNN. Fast, and its results
            depend on the CPU.
        isa: highest instruction set that oneDNN may use in TensorFlow, where it also serves Eigen's
            contraction kernels, or None for whatever the CPU has.
        torch_isa: the same in PyTorch, whose convolutions add up in other orders with AVX-512 than without.
        numpy_disable: CPU features hidden from NumPy's dispatcher.
        openblas_core: kernel set that OpenBLAS must use, or None for its own choice.
        graph_optimizer: whether TensorFlow may rewrite the graph before it runs (Grappler).
            It turns x / sqrt(v) into x * rsqrt(v) and 1 / v into a reciprocal, which the
            hardware only approximates, each CPU in its own way.
        portable: whether equal digests are promised on every x86-64 CPU with AVX2.
        shards: devices that a training's batches are cut over, of one host or several: see
            :mod:`repix.training.gang`. 0: one device, and no others are asked for.
    """

    name: str
    backend: str = "tensorflow"
    threads: int = 0
    operation_threads: int = 0
    onednn: bool = True
    isa: str | None = None
    torch_isa: str | None = None
    numpy_disable: str | None = None
    openblas_core: str | None = None
    graph_optimizer: bool = True
    portable: bool = False
    shards: int = 0

    def resolved_threads(self) -> int:
        """Return the thread count that this process will use."""
        return self.threads or cores()

    def tensorflow_threads(self) -> tuple[int, int]:
        """Return how many threads an operation of TensorFlow has, and how many operations run at once.

        No bit follows the latter. Two that share all threads leave fewer of them idle where an operation is too small
        for all, or only moves memory.
        """
        if self.operation_threads:
            return self.operation_threads, min(cores(), 16)
        return self.resolved_threads(), min(cores(), 2)

    def after_training(self) -> str:
        """Return the name of the profile of stages that do not train: networks run on TensorFlow there."""
        return self.name if self.backend == "tensorflow" else "fast"

    def record(self) -> dict:
        """Return the profile as it goes into lineage: all of it, threads resolved."""
        return asdict(self) | {"threads": self.resolved_threads()}

    def environment(self) -> dict[str, str | None]:
        """Return the environment variables that put it in force; None means unset."""
        threads = str(self.resolved_threads())
        return {
            "KERAS_BACKEND": self.backend,
            "PYTHONHASHSEED": "0",
            "TF_ENABLE_ONEDNN_OPTS": "1" if self.onednn else "0",
            "ONEDNN_MAX_CPU_ISA": self.isa,
            "TF_DETERMINISTIC_OPS": "1",
            **({name: value if self.shards else None for name, value in SUMS_OF_GPUS.items()}),
            # Else XLA's threads on a CPU were as many as cores, or devices of the process; some sums follow them.
            "PJRT_NPROC": threads if self.shards > 1 else None,
            # Kernels whose sums have one order, chosen by rule and not by a race between them.
            "XLA_FLAGS": "--xla_gpu_deterministic_ops=true" if self.backend == "jax" else None,
            "TF_NUM_INTRAOP_THREADS": str(self.tensorflow_threads()[0]),
            # How many run at once is no part of the profile: it is set when TensorFlow starts.
            "TF_NUM_INTEROP_THREADS": None,
            # Images that are rearranged need memory of many sizes, which the system would clear anew at each step.
            "TF_CPU_ALLOCATOR_USE_BFC": "true" if self.portable else None,
            # What it may take, not what it takes: without this 64 GB.
            "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(2**20) if self.portable else None,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1",
            "OPENBLAS_CORETYPE": self.openblas_core,
            "NPY_DISABLE_CPU_FEATURES": self.numpy_disable,
            # The portable profile is a CPU's, also where there is a GPU.
            "CUDA_VISIBLE_DEVICES": "-1" if self.portable else os.environ.get("CUDA_VISIBLE_DEVICES"),
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
            **NO_TELEMETRY,
        }


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        # Two threads, so that no bits follow the reader's core count; those of TensorFlow follow none at all, since
        # each of its operations has one.
        Profile(
            "portable",
            threads=2,
            operation_threads=1,
            onednn=False,
            isa="AVX512_CORE",  # the same bits with and without (src/repix/models/fixed_sums.py), a third less time
            torch_isa="AVX2",
            numpy_disable="X86_V4 AVX512_ICL AVX512_SPR",
            openblas_core="Haswell",
            graph_optimizer=False,
            portable=True,
        ),
        Profile("fast"),
        Profile("jax", backend="jax"),
    )
}
SHARDED = re.compile(r"jax-([1-9][0-9]{0,3})")
"""The profile ``jax`` on several devices: another number of them gives other bits."""


def find(name: str) -> Profile:
    """Return the profile called ``name``.

    Raises:
        UserError: there is none of that name.
    """
    if sharded := SHARDED.fullmatch(str(name)):
        shards = int(sharded[1])
        return replace(PROFILES["jax"], name=name, shards=shards, threads=shards if shards > 1 else 0)
    if str(name) not in PROFILES:  # also what is no text
        raise UserError(
            f"params.yaml: run.profile: {name!r} is not an execution profile; there are {', '.join(PROFILES)}, "
            f"and jax-2, jax-4, ... for so many devices"
        )
    return PROFILES[name]


def switches() -> list[str]:
    """Return the variables of a user's that a profile unsets beside its own."""
    return sorted(name for name in os.environ if _SWITCHES.match(name) and not _USERS.fullmatch(name))


def apply(name: str) -> Profile:
    """Put the profile in force for libraries that are not imported yet; return it.

    Python's own hash seed is read before any code runs, so it takes :func:`enter` to set
    that as well.
    """
    profile = find(name)
    for key, value in (dict.fromkeys(switches()) | profile.environment()).items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    os.environ[_ENTERED] = name
    return profile


START: str | os.PathLike[str] | None = None
"""Folder that this process was started in, where it has left it: what its command line names counts from there."""


def enter(name: str) -> Profile:
    """Put the profile in force for this whole process; return it.

    Where the environment differs from what the profile asks for, the process starts itself
    again, once, with the same arguments (about 20 ms, before any heavy import).

    Raises:
        UserError: there is no profile of that name; or the environment still differs in the
            process that was started again.
        RuntimeError: NumPy or TensorFlow was imported first, so that it is too late.
    """
    profile = find(name)
    late = {"numpy", "tensorflow", "keras", "torch", "jax"} & sys.modules.keys()
    wanted = profile.environment()
    # Once they are imported, switches come from them, and nobody reads them any more.
    others = [] if late else [name for name in switches() if name not in wanted]
    wanted = dict.fromkeys(others) | wanted
    odd = sorted(key for key, value in wanted.items() if os.environ.get(key) != value)
    again = os.environ.pop(_AGAIN, None)
    if odd:
        if again == str(os.getpid()):  # exec keeps the process number
            raise UserError(f"something sets {', '.join(odd)} whenever Python starts (sitecustomize?): remove it")
        if late:
            raise RuntimeError(f"profile.enter must come before the import of {', '.join(sorted(late))}")
        if others:
            print(f"repix: unset for this run, as no record tells of them: {', '.join(others)}", file=sys.stderr)
        apply(name)
        os.environ[_AGAIN] = str(os.getpid())
        sys.stdout.flush()
        sys.stderr.flush()
        if START is not None:
            os.chdir(START)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ[_ENTERED] = name
    return profile


def settle_torch() -> None:
    """Put in force what the profile says of PyTorch: its threads, and the instruction set of its oneDNN.

    To be called before PyTorch computes anything: its oneDNN and TensorFlow's read one variable, each once, when it is
    first asked for something.
    """
    import torch

    used = current()
    torch.set_num_threads(used.resolved_threads())
    if used.torch_isa and torch.backends.mkldnn.is_available():
        before = os.environ.get("ONEDNN_MAX_CPU_ISA")
        os.environ["ONEDNN_MAX_CPU_ISA"] = used.torch_isa
        try:
            torch.zeros(1).to_mkldnn()
        finally:
            if before is None:
                del os.environ["ONEDNN_MAX_CPU_ISA"]
            else:
                os.environ["ONEDNN_MAX_CPU_ISA"] = before


def forbid_telemetry() -> None:
    """Keep libraries that are not imported yet, and processes to come, from phoning home."""
    os.environ.update(NO_TELEMETRY)


def leave() -> None:
    """Record that this process runs under no profile, for one whose results do not depend on any."""
    forbid_telemetry()
    os.environ.pop(_ENTERED, None)


def entered() -> Profile | None:
    """Return the profile in force, or None where this process entered none."""
    name = os.environ.get(_ENTERED)
    return find(name) if name else None


def current() -> Profile:
    """Return the profile in force (``fast`` where none was entered)."""
    return entered() or find("fast")
