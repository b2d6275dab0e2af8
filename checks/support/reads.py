"""Runs stage scripts and notes what they read: ``python reads.py LOGS "stages/x.py ARGUMENT..." ...``.

Every key of params.yaml that a stage reads is appended to LOGS/<stage>, one per line: fields
of the typed settings, and fields that are written out with a record. The machine has the
name that REPIX_TEST_HOST says, so that an out that carries it can be found.
"""

from __future__ import annotations

import os
import platform
import runpy
import shlex
import socket
import sys
from pathlib import Path


def record(logs: Path) -> None:
    """Make the parameter reader of repix append what the running script reads to a file in ``logs``."""
    from repix.config import reader

    keys: dict[int, str] = {}
    kept = []  # the objects stay alive, so that no other gets their id
    read, section, dump, get = reader.read, reader.section, reader.Settings.model_dump, object.__getattribute__

    def note(key: str) -> None:
        with open(logs / Path(sys.argv[0]).stem, "a") as stream:
            stream.write(f"{key}\n")

    class Noted(dict):
        """A section as it stands in the file: what is asked of it is read, the rest is not."""

        def __init__(self, key: str, found: dict):
            super().__init__(found)
            self.key = key

        def __getitem__(self, field):
            note(f"{self.key}.{field}")
            return super().__getitem__(field)

        def get(self, field, default=None):
            note(f"{self.key}.{field}")
            return super().get(field, default)

    def name(settings, key: str) -> None:
        keys[id(settings)] = key
        kept.append(settings)

    def noted_read(key, *args, **kwargs):
        reader.section = section  # read's own use of it is no use of the whole section
        try:
            settings = read(key, *args, **kwargs)
        finally:
            reader.section = noted_section
        name(settings, key)
        return settings

    def noted_section(key, *args, **kwargs):
        found = section(key, *args, **kwargs)
        if isinstance(found, dict):
            return Noted(key, found)
        note(key)
        return found

    def noted_get(self, field):
        value, key = get(self, field), keys.get(id(self))
        if key and field in type(self).model_fields:
            if isinstance(value, reader.Settings):
                name(value, f"{key}.{field}")
            else:
                note(f"{key}.{field}")
        return value

    def noted_dump(self, **kwargs):
        key = keys.get(id(self))
        if key:
            for field in kwargs.get("include") or type(self).model_fields:
                note(f"{key}.{field}")
        return dump(self, **kwargs)

    reader.read, reader.section = noted_read, noted_section
    reader.Settings.__getattribute__, reader.Settings.model_dump = noted_get, noted_dump


if __name__ == "__main__":
    logs, commands = Path(sys.argv[1]), [shlex.split(given) for given in sys.argv[2:]]
    if host := os.environ.get("REPIX_TEST_HOST"):
        socket.gethostname = platform.node = lambda: host
    record(logs)
    for command in commands:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")
