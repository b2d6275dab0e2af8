"""How the processes of one training find each other, before JAX's service connects them.

The leader listens at its address for the others, who say which of the training they are; when all have come they go on
together, or all end with one reason. JAX's service, which takes the same port afterwards, ends a process by an abort in
C++ where two have one number, another number of processes is expected, or nobody comes, and lets a third one wait for
ever.

The leader greets with :data:`GREETING`; a process sends a line of JSON (``process``, ``processes``, ``parts``), and
gets ``go`` or ``no`` and a reason. A connection that says anything else, or nothing for :data:`SAY_SECONDS`, is closed
and told of nowhere: it is a stranger's.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from repix.errors import UserError, printable
from repix.training.gang import Place

COME_SECONDS = 300.0  # the leader waits for the others, and they for a leader's name to be known
LEAVING_SECONDS = 60.0  # what listens at the address may be the service of a training that is just ending
SAY_SECONDS = 10.0
LOOK_SECONDS = 1.0
STRANGERS = 100  # connections that said nothing yet
LINE = 4096  # bytes of what is said, at most
GREETING = b"repix, the leader of a training\n"
MOST = 10**9  # processes
MENDS = {
    "cell": "--dataset, --model and --seed",
    "params": "params.yaml",
    "inputs": "data (`dvc pull`)",
    "code": "commit",
    "environment": "Python and packages (`repix doctor` names them)",
    "profile": "run.profile",
}  # of a part that differs: what has to be the same
OTHER = "who listens there is no leader that waits"


@dataclass
class _Caller:
    """A connection to the leader: since when, what it said so far, and which process it is."""

    since: float
    said: bytes = b""
    process: int | None = None


class _Hello(NamedTuple):
    """What a process says of itself."""

    process: int
    processes: int
    parts: Mapping[str, str]

    @classmethod
    def read(cls, line: bytes) -> _Hello | None:
        """Return what a line says; None where it is none of ours."""
        try:
            given = json.loads(line)
            found = cls(**given)
        except (ValueError, TypeError, RecursionError):
            return None
        if not (type(found.process) is type(found.processes) is int and isinstance(found.parts, dict)):
            return None
        return found if 0 < found.process < found.processes < MOST else None


def call(place: Place, parts: Mapping[str, str]) -> str:
    """Wait until all processes of a training are there; return the address of this host by which they are reached.

    Args:
        place: where this process stands; with a coordinator.
        parts: of what the training follows from, which must be those of the leader; digests by name.

    Raises:
        UserError: they do not come, or train something else; the same reason in all that came.
    """
    where = printable(place.coordinator or "")
    host, _, port = (place.coordinator or "").rpartition(":")
    host = host.strip("[]")
    if not place.leads:
        return _come(host, int(port), where, _Hello(place.process, place.processes, parts))
    with listening(host, int(port)) as door:
        if place.processes > 1:
            print(f"repix: waiting for {place.processes - 1} more at {where}", file=sys.stderr, flush=True)
        _Leader(door, place, parts).wait()
    return host


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen at the leader's address.

    Raises:
        UserError: it is none of this host, or taken. gRPC would crash, or share the port with another leader.
    """
    with contextlib.ExitStack() as stack:
        try:
            family, kind, number, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            door = stack.enter_context(socket.socket(family, kind, number))
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not of a leader that has just ended
            door.bind(place)
            door.listen()
        except OSError as error:
            raise UserError(
                f"REPIX_COORDINATOR: cannot listen at {host}:{port} ({error.strerror or error}): "
                f"an address of this host, and a port that is free"
            ) from None
        yield door


class _Leader:
    """The leader's side: who has come, until all have."""

    def __init__(self, door: socket.socket, place: Place, parts: Mapping[str, str]):
        self._door, self._place, self._parts = door, place, parts
        self._callers: dict[socket.socket, _Caller] = {}
        self._chosen = selectors.DefaultSelector()

    def _came(self) -> set[int]:
        return {caller.process for caller in self._callers.values() if caller.process is not None}

    def wait(self) -> None:
        """Let all go when all have come; where that cannot be, tell those that came why.

        Raises:
            UserError: it cannot be.
        """
        others = set(range(1, self._place.processes))
        until = time.monotonic() + COME_SECONDS
        with self._chosen:
            self._chosen.register(self._door, selectors.EVENT_READ)
            try:
                while self._came() != others:
                    if time.monotonic() > until:
                        away = ", ".join(map(str, sorted(others - self._came())))
                        raise UserError(
                            f"REPIX_PROCESS {away} of REPIX_PROCESSES={self._place.processes} did not come to "
                            f"{self._place.coordinator} within {COME_SECONDS:.0f} s: start all of them"
                        )
                    self._look()
                self._answer(b"go\n")
            except UserError as error:
                self._answer(f"no {printable(str(error))}\n".encode())
                raise
            finally:
                for connection in list(self._callers):
                    self._close(connection)

    def _look(self) -> None:
        """Take what comes within a second."""
        for key, _ in self._chosen.select(LOOK_SECONDS):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is self._door:
                self._open()
            else:
                self._hear(connection)
        now = time.monotonic()
        for connection, caller in list(self._callers.items()):
            if caller.process is None and now - caller.since > SAY_SECONDS:
                self._close(connection)

    def _open(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone again
            connection, _ = self._door.accept()
            if len(self._callers) >= STRANGERS + self._place.processes:
                connection.close()
                return
            connection.setblocking(False)
            self._callers[connection] = _Caller(time.monotonic())
            self._chosen.register(connection, selectors.EVENT_READ)
            self._say(connection, GREETING)

    def _hear(self, connection: socket.socket) -> None:
        """Take what a connection says; it is closed where that is nothing of ours.

        Raises:
            UserError: a process of this training does not fit.
        """
        caller = self._callers[connection]
        try:
            given = connection.recv(LINE)
        except BlockingIOError:
            return
        except OSError:
            given = b""
        caller.said += given
        line, end, more = caller.said.partition(b"\n")
        hello = _Hello.read(line) if end and not more and len(line) <= LINE else None
        waits = given and caller.process is None
        if waits and hello is not None:
            try:
                self._check(hello)
            finally:
                caller.process = hello.process
        elif not (waits and not end and len(line) <= LINE):
            self._close(connection)

    def _check(self, hello: _Hello) -> None:
        if hello.processes != self._place.processes:
            raise UserError(
                f"REPIX_PROCESSES: process {hello.process} was started with {hello.processes}, and the leader "
                f"with {self._place.processes}; give all the same"
            )
        if hello.process in self._came():
            raise UserError(f"REPIX_PROCESS={hello.process}: two processes have this number; give each its own")
        if differ := [name for name, digest in self._parts.items() if hello.parts.get(name) != digest]:
            mends = dict.fromkeys(MENDS.get(name, name) for name in differ)
            raise UserError(
                f"process {hello.process} trains something else than the leader ({', '.join(differ)}): "
                f"bring all to the same {', '.join(mends)}, and start them again"
            )

    def _answer(self, line: bytes) -> None:
        """Tell all that came; wait a moment until they close, which leaves the port free at once."""
        told = [connection for connection, caller in self._callers.items() if caller.process is not None]
        for connection in told:
            self._say(connection, line)
        until = time.monotonic() + SAY_SECONDS
        for connection in told:
            with contextlib.suppress(OSError):
                connection.settimeout(max(0.01, until - time.monotonic()))
                connection.recv(1)

    def _say(self, connection: socket.socket, line: bytes) -> None:
        with contextlib.suppress(OSError):  # one that is gone is seen so when it is heard
            connection.send(line)

    def _close(self, connection: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._chosen.unregister(connection)
        del self._callers[connection]
        connection.close()


def _come(host: str, port: int, where: str, hello: _Hello) -> str:
    """Come to the leader, however long its earlier stages take, and wait with it for the others."""
    begun = time.monotonic()
    told = ""
    while True:
        limit = None
        try:
            return _ask(host, port, hello)
        except socket.gaierror as error:
            why, limit = f"{error.strerror or error}", COME_SECONDS
        except ConnectionAbortedError:
            why, limit = f"{OTHER}: it has begun, or is another program", LEAVING_SECONDS
        except OSError as error:
            why = f"{error.strerror or error}"
        now = time.monotonic()
        if limit is None:
            begun = now
        elif now - begun > limit:
            raise UserError(f"REPIX_COORDINATOR: {where}: {why}; for {limit:.0f} s")
        if why != told:
            print(f"repix: waiting for the leader at {where} ({why}); Ctrl-C ends it", file=sys.stderr, flush=True)
            told = why
        time.sleep(LOOK_SECONDS)


def _ask(host: str, port: int, hello: _Hello) -> str:
    """Say at the leader's address who this is and wait for the answer; return this host's address there.

    Raises:
        OSError: nobody listens there, or the leader went away.
        ConnectionAbortedError: another listens there.
        UserError: the leader said why not.
    """
    with socket.create_connection((host, port), timeout=SAY_SECONDS) as leader:
        leader.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that goes dark is noticed
        own = leader.getsockname()[0]
        try:
            greeted = _line(leader)
        except TimeoutError:
            greeted = b""
        if greeted != GREETING:
            raise ConnectionAbortedError
        leader.sendall(json.dumps(hello._asdict()).encode() + b"\n")
        print("repix: the leader is there; it waits for the others", file=sys.stderr, flush=True)
        leader.settimeout(COME_SECONDS + SAY_SECONDS)
        answer, _, why = _line(leader).decode(errors="replace").strip().partition(" ")
    if answer == "go":
        return own
    if answer == "no":
        raise UserError(printable(why[:LINE]))
    raise ConnectionResetError("the leader went away")


def _line(connection: socket.socket) -> bytes:
    """Return a line that a connection says; what there is of it where it ends before."""
    said = b""
    while not said.endswith(b"\n") and len(said) <= LINE:
        part = connection.recv(LINE)
        if not part:
            break
        said += part
    return said
