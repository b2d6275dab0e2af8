"""``datasets.<name>.archive``: where the images come from."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from repix.config.reader import Settings


class Archive(Settings):
    """Where a data set's archive is had, and what is known of it.

    Attributes:
        urls: mirrors of one archive, tried in order: ``https://``, ``http://``, ``file:``
            or ``synthetic:<generator>?option=value``.
        sha256: the archive's digest; null records what came and says so.
        licence: the licence or terms of the images, shown by the cards of an export.
        withdrawn: why the set can no longer be had; a grid that asks for it is refused with this line.
    """

    urls: tuple[str, ...] = Field(min_length=1)
    sha256: str | None = None
    licence: str = "unknown"
    withdrawn: str | None = None

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError("a sha256 is 64 hexadecimal digits in lower case, or null for not known")
        return value
