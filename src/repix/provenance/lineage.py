"""What a result followed from, as a record that is the same on every machine.

A run key names a result by its declared inputs alone: parameters, data, code, packages
and execution profile. Two stages with one run key leave the same bytes, wherever and
whenever they run; host, time and processor are observations, and belong to tracking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from repix.files import canonical_json, digest_text
from repix.provenance.code import Closure, environment, packages_of
from repix.schemas import Record

PARTS = ("stage", "cell", "params", "inputs", "code", "environment", "profile")
"""Of which a run key is made."""


class Lineage(Record):
    """What a stage's outs followed from: ``lineage/<stage>/<cell>.json``.

    Attributes:
        stage: name of the stage, such as ``train``.
        cell: the matrix item it ran for: a cell, or a data set's name.
        params: every parameter that the stage read, with defaults filled in.
        inputs: input -> sha256 (canonical digest for weights and arrays).
        code: file of the import closure -> digest of what it computes (:mod:`repix.provenance.code`).
        environment: Python and the packages that can move bits -> version.
        profile: the declared execution profile.
        run_key: digest of all of the above, and of nothing else.
        outputs: out -> sha256; empty until the stage has written them.
    """

    SCHEMA = "repix.lineage/1"
    stage: str
    cell: str
    params: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    environment: dict[str, str]
    profile: dict[str, Any]
    run_key: str
    outputs: dict[str, str] = Field(default_factory=dict)

    def parts(self) -> dict[str, str]:
        """Return a digest of each part of what the run key is made of: they tell what differs where two run keys do."""
        return {name: digest_text(canonical_json(getattr(self, name)))[:16] for name in PARTS}

    def with_outputs(self, outputs: Mapping[str, str]) -> Self:
        """Return the record completed by the digests of what the stage wrote."""
        return self.model_copy(update={"outputs": dict(outputs)})


def declare(
    *,
    stage: str,
    cell: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: Closure,
    profile: Mapping[str, Any],
) -> Lineage:
    """Return the lineage of a stage that is about to run: all but its outputs.

    Args:
        stage, cell: see :class:`Lineage`.
        params: plain JSON data, such as ``settings.model_dump(mode="json")``.
        inputs: input -> digest.
        code: what the stage may import.
        profile: :meth:`repix.profile.Profile.record`.
    """
    packages = packages_of(code.places.values(), profile)
    known = {
        "stage": stage,
        "cell": cell,
        "params": dict(params),
        "inputs": dict(inputs),
        "code": code.digests(),
        "environment": environment(packages),
        "profile": dict(profile),
    }
    return Lineage(**known, run_key=run_key(**known))


def run_key(
    *,
    stage: str,
    cell: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: Mapping[str, str],
    environment: Mapping[str, str],
    profile: Mapping[str, Any],
) -> str:
    """Return the sha256 of the declared inputs as canonical JSON; arguments as in :class:`Lineage`."""
    declared = {
        "stage": stage,
        "cell": cell,
        "params": params,
        "inputs": inputs,
        "code": code,
        "environment": environment,
        "profile": profile,
    }
    return digest_text(canonical_json(declared))
