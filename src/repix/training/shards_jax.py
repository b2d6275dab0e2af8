"""Several devices, of one or several processes, for one training on JAX: each computes a part of every batch.

Weights, moments and pools are the same on all devices, a batch is cut over them, and XLA's partitioner adds what they
tell one another: batch normalisation, dropout, pools and losses are those of the whole batch. Bits follow the number
of devices and the implementation of their sums (Gloo on CPUs, NCCL on GPUs), and not the hosts that they lie on: for
that, processes are always brought together by JAX's service, also a single one.

All processes run the same program in the same order, so whatever only one knows (a signal, a timer) is agreed on
before it is acted on. Sums are all-reduces alone, and none begins before all have come to it: a barrier of the
service waits for hours, Gloo for seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp
from jax._src import distributed  # its barrier, and its texts by key, have no public name
from jax._src.lib import _jax as jaxlib
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from repix import processes, profile
from repix.errors import UserError, printable
from repix.training import roll_call
from repix.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from repix.training.gang import Alone, Place, only_one
from repix.training.loop import StoppedError

AXIS = "shards"
HEARTBEAT_SECONDS = 30  # after which a silent process counts as dead, and how long one waits for the others at its end
CONNECT_SECONDS = 60  # until JAX's service has connected processes that have come already
BARRIER_MILLISECONDS = 24 * 3600 * 1000
ASKED = 2  # numbers that are agreed on at once
WORDS = 1 << 22  # of a part of what is shared


class OneDevice:
    """Where arrays lie in a training on one device: on it."""

    def everywhere(self, array) -> jax.Array:
        """Return an array on the device."""
        return jnp.asarray(array)

    def batches(self, parts: tuple[np.ndarray, ...]) -> tuple:
        """Return a block's batches as a call takes them."""
        return parts

    def local(self, array: jax.Array) -> jax.Array:
        """Return an array that this process can read."""
        return array

    def everybody(self, says: bool) -> bool:
        """Return whether every process says so, when all have come to this."""
        return says

    def compile(self, call: Callable) -> Callable:
        """Return the compiled ``call(values, slots, ...)``, whose first two arguments are used up."""
        return jax.jit(call, donate_argnums=(0, 1))


class Shards:
    """Where arrays lie in a training on several devices: whole on each, but for batches.

    Args:
        gang: the processes.
        mesh: their devices.
    """

    def __init__(self, gang: Gang, mesh: Mesh):
        self._gang = gang
        self._whole, self._cut = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, AXIS))
        self._here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]

    def everywhere(self, array) -> jax.Array:
        """See :class:`OneDevice`; no process is told of another's."""
        parts = [jax.device_put(array, device) for device in self._here]
        return jax.make_array_from_single_device_arrays(np.shape(array), self._whole, parts)

    def batches(self, parts: tuple[np.ndarray, ...]) -> tuple:
        """See :class:`OneDevice`: axis 1, the batch's, is cut."""
        return tuple(
            jax.make_array_from_callback(part.shape, self._cut if part.ndim > 1 else self._whole, part.__getitem__)
            for part in parts
        )

    def local(self, array: jax.Array) -> jax.Array:
        """See :class:`OneDevice`."""
        return array.addressable_data(0)

    def everybody(self, says: bool) -> bool:
        """See :class:`OneDevice`."""
        return not self._gang.agree(int(not says))[0]

    def compile(self, call: Callable) -> Callable:
        """See :class:`OneDevice`: it is compiled by all before any runs it."""
        traced = jax.jit(call, donate_argnums=(0, 1), out_shardings=self._whole)
        programs: list[Callable] = []

        def run(*given):
            if not programs:
                programs.append(traced.lower(*given).compile())
            return self._gang.together(programs[0], *given)

        return run


_placement: OneDevice | Shards = OneDevice()


def placement() -> OneDevice | Shards:
    """Return where the arrays of this process' training lie."""
    return _placement


class Gang(Alone):
    """The processes of a training on several devices; a context, at whose end they part.

    Args:
        shards: devices, over all processes.
        place: where this process stands.
        run_key: of the training.
        parts: of what the run key is made of, which must be those of the leader; digests by name.

    Raises:
        UserError: devices are missing, other processes do not come, or train something else.
    """

    def __init__(self, shards: int, place: Place, run_key: str, parts: Mapping[str, str]):
        self.leads = place.leads
        self._many = place.processes > 1
        if shards % place.processes:
            raise UserError(
                f"run.profile: {shards} devices cannot be shared evenly by REPIX_PROCESSES={place.processes} processes"
            )
        own = shards // place.processes
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_num_cpu_devices", own)
        # Its handler of SIGTERM would stand where the loop's does.
        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_check_proxy_envs", False)
        _connect(place, parts)
        processes.leave_at_once(True)  # until all part: at an ordinary exit JAX waits for the others
        self._client, self._barriers = distributed.global_state.client, 0
        self._run_key = run_key
        everybody = range(place.processes)
        each = [[device for device in jax.devices() if device.process_index == process] for process in everybody]
        fewest = min(map(len, each))
        if fewest < own:
            raise UserError(f"run.profile: {own} devices are needed on each host, and one has {fewest}")
        self._own = each[place.process][:own]
        self._mesh = Mesh(np.array([device for devices in each for device in devices[:own]]), (AXIS,))
        self._rows = NamedSharding(self._mesh, PartitionSpec(AXIS))
        whole = NamedSharding(self._mesh, PartitionSpec())
        # By an all-reduce. Each is compiled before the first of them waits for the others.
        highest = jax.jit(lambda rows: jnp.max(rows, axis=0), out_shardings=whole)
        self._highest = {
            np.dtype(kind): highest.lower(jax.ShapeDtypeStruct((shards, many), kind, sharding=self._rows)).compile()
            for kind, many in ((np.int32, ASKED), (np.uint32, WORDS))
        }
        global _placement
        _placement = Shards(self, self._mesh)

    def together(self, function: Callable, *given):
        """Return ``function(*given)``, begun when all processes have come to it.

        Raises:
            UserError: another one is gone.
        """
        try:
            self._barriers += 1
            self._client.wait_at_barrier(f"repix-{self._barriers}", BARRIER_MILLISECONDS)
            return jax.block_until_ready(function(*given))
        except jax.errors.JaxRuntimeError as error:
            if not self._many:
                raise
            said = printable(" ".join(str(error).split())[:160])
            raise UserError(
                f"another process of this training is gone ({said}); start all of them again: "
                f"they go on from the last checkpoint"
            ) from None

    def _reduce(self, row: np.ndarray) -> np.ndarray:
        """Return the elementwise maximum of all processes' rows."""
        parts = [jax.device_put(row[None], device) for device in self._own]
        rows = jax.make_array_from_single_device_arrays((self._mesh.size, len(row)), self._rows, parts)
        return np.asarray(self.together(self._highest[row.dtype], rows).addressable_data(0))

    def agree(self, *asked: int) -> tuple[int, ...]:
        """See :class:`repix.training.gang.Alone`; at most :data:`ASKED` numbers, none below 0."""
        if not self._many:
            return asked
        row = np.zeros(ASKED, np.int32)
        row[: len(asked)] = asked
        return tuple(self._reduce(row)[: len(asked)].tolist())

    def share(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """Return the leader's checkpoint in all processes, which need no common folder for it."""
        if not self._many:
            return checkpoint
        with tempfile.TemporaryDirectory() as folder:
            path, data = Path(folder) / "checkpoint.npz", b""
            if self.leads and checkpoint is not None:
                write_checkpoint(path, checkpoint, self._run_key)
                data = path.read_bytes()
            words, filled = self.agree(-(-len(data) // 4), -len(data) % 4)
            own = np.frombuffer(data + bytes(-len(data) % 4), np.uint32)
            parts = []
            for first in range(0, words, WORDS):
                part = own[first : first + WORDS]  # of the leader; nothing of the others
                parts.append(self._reduce(np.pad(part, (0, WORDS - len(part)))))
            if self.leads or not parts:
                return checkpoint
            path.write_bytes(np.concatenate(parts).tobytes()[: words * 4 - filled])
            return read_checkpoint(path, self._run_key)

    def __exit__(self, kind, error, trace) -> None:
        """Part: after the end, or a stop that all agreed on, together; else at once, since others may be gone."""
        if kind is None or isinstance(error, StoppedError):
            try:
                jax.distributed.shutdown()
            except jax.errors.JaxRuntimeError:  # what had to be done is done
                return
            processes.leave_at_once(False)


def join(run_key: str, parts: Mapping[str, str]) -> Alone:
    """Return this process' gang: of several devices under a profile such as ``jax-4``, else it alone.

    Call it before JAX computes anything.

    Args:
        run_key, parts: see :class:`Gang`.

    Raises:
        UserError: see :class:`Gang`.
    """
    shards = profile.current().shards
    return Gang(shards, Place.read(), run_key, parts) if shards else only_one()


def _connect(place: Place, parts: Mapping[str, str]) -> None:
    """Wait for all processes, and start JAX's service or find it."""
    address = place.coordinator
    if address is not None:
        own = roll_call.call(place, parts)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            own, port = free.getsockname()
            address = f"{own}:{port}"
    os.environ["no_grpc_proxy"] = address.rpartition(":")[0]  # gRPC would ask a proxy for it  # noqa: SIM112
    # Gloo would tell the others the address of this host's own name, which on many is 127.0.0.1; JAX passes none on.
    jaxlib.make_gloo_tcp_collectives = partial(jaxlib.make_gloo_tcp_collectives, hostname=own)
    try:
        with processes.handling(signal.SIG_DFL):  # it waits outside Python, and there is nothing to lose
            jax.distributed.initialize(
                address,
                place.processes,
                place.process,
                cluster_detection_method="deactivate",
                initialization_timeout=CONNECT_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=HEARTBEAT_SECONDS,
                coordinator_bind_address=address,
            )
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        said = printable(" ".join(str(error).split())[:160])
        raise UserError(f"REPIX_COORDINATOR: {address}: the processes did not come together ({said})") from None
