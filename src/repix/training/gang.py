"""The processes of one training: which of them leads, what they agree on, and how they end together.

Nearly every training is one process, which leads :class:`Alone` and agrees with itself. Under a profile such as
``jax-4`` it may be several, one a host (:mod:`repix.training.shards_jax`). Where they stand is told by the
environment, since it is no part of a result:

- ``REPIX_PROCESSES``: how many there are (1).
- ``REPIX_PROCESS``: which of them this is, from 0; process 0 leads: it alone validates, tracks, and writes.
- ``REPIX_COORDINATOR``: ``HOST:PORT`` at which the leader listens for the others.

Under ``srun`` the first two are SLURM's own, where they are not set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repix.errors import UserError

if TYPE_CHECKING:
    from repix.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Place:
    """Where this process stands among those of its training: ``process`` of ``processes``, and the leader's address."""

    process: int = 0
    processes: int = 1
    coordinator: str | None = None

    @property
    def leads(self) -> bool:
        """Whether this process validates, tracks, and writes."""
        return self.process == 0

    @classmethod
    def read(cls) -> Place:
        """Return what the environment says.

        Raises:
            UserError: it contradicts itself.
        """
        given = os.environ
        step = "SLURM_STEP_NUM_TASKS" in given and "SLURM_PROCID" in given
        many = given.get("REPIX_PROCESSES") or (given["SLURM_STEP_NUM_TASKS"] if step else "1")
        which = given.get("REPIX_PROCESS") or (given["SLURM_PROCID"] if step else "0")
        if not (all(_is_count(text) for text in (many, which)) and int(which) < int(many)):
            raise UserError(
                f"REPIX_PROCESS={which!a} of REPIX_PROCESSES={many!a}: whole numbers, the first below the other"
            )
        coordinator = given.get("REPIX_COORDINATOR")
        if int(many) > 1 and not coordinator:
            raise UserError(
                "REPIX_COORDINATOR: not set; HOST:PORT of the process 0, the same for all, such as 10.0.0.1:8476"
            )
        host, _, port = (coordinator or "").rpartition(":")
        if coordinator and not (_is_host(host) and port.isdecimal() and 0 < int(port) < 65536):
            raise UserError(f"REPIX_COORDINATOR={coordinator!a}: HOST:PORT of the process 0, such as 10.0.0.1:8476")
        if coordinator and not step and not given.get("REPIX_PROCESSES"):
            raise UserError("REPIX_COORDINATOR: set, and REPIX_PROCESSES is not; set both, or none to train alone")
        return cls(int(which), int(many), coordinator)


def _is_count(text: str) -> bool:
    """Return whether a text is a whole number of processes, which no one writes with ten digits."""
    return text.isdecimal() and len(text) < 10


def _is_host(name: str) -> bool:
    """Return whether a name can be looked up: one with an empty part, as in 10.0.0..1, raises UnicodeError there."""
    try:
        return bool(name.encode("idna")) and "\0" not in name
    except UnicodeError:
        return False


class Alone:
    """A training in one process: see :class:`repix.training.shards_jax.Gang` for the other kind."""

    leads = True

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *error) -> None:
        """Nobody waits."""

    def agree(self, *asked: int) -> tuple[int, ...]:
        """Return the highest that any process asked for, of each: what this one asked for."""
        return asked

    def share(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """Return the leader's checkpoint: this one."""
        return checkpoint


def only_one() -> Alone:
    """Return the gang of a backend that trains in one process.

    Raises:
        UserError: the environment asks for several.
    """
    if Place.read().processes > 1:
        raise UserError("REPIX_PROCESSES: only a profile such as jax-4 trains in several processes: set run.profile")
    return Alone()
