"""Pack a cell into one archive that restores with tar, sha256sum and git alone.

In it: the code with its history, params.yaml, dvc.lock, metrics, lineage, weights, exported
models with their cards, and checksums. The tree must be clean and the export must be what
was scored. README.md in the archive says how to restore it.

--check reads an archive, runs nothing of it, and says L0 where all files are those of its
checksums and every out is, bit for bit, what dvc.lock of its commit names. It needs nothing
of the repository that made it, and may be asked of an archive from anybody.

Examples:
  repix bundle sample-pix2pix_small-0 -o result.tar
  repix bundle --check result.tar
  tar -xf result.tar && cd sample-pix2pix_small-0 && sha256sum -c SHA256SUMS
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from repix.commands import here, new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("cell", metavar="CELL", nargs="?", help="<dataset>-<model>-<seed>")
    what.add_argument("--check", type=here, metavar="FILE.tar", help="check an archive; nothing of it is run")
    parser.add_argument("-o", "--output", type=here, metavar="FILE.tar", help="default: CELL.tar beside the repository")
    parser.add_argument("--json", action="store_true", help="print JSON")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: an archive is checked anywhere."""
    return arguments.check is None


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from repix.files import digest_file
    from repix.publishing.bundle import bundle, check

    if arguments.check:
        found = check(arguments.check)
        outs = f"{len(found['outs'])} outs equal dvc.lock of {found['commit'][:12]}"
        told = f"{found['files']} files as in SHA256SUMS, {outs}"
        print(json.dumps(found, indent=2) if arguments.json else f"{arguments.check}: {told}, bit for bit (L0)")
        return 0
    # Inside the repository it would make the tree unclean for the next command.
    out = new_file(arguments.output or Path("..") / f"{arguments.cell}.tar")
    held = bundle(Path(), arguments.cell, out)
    digest, size = digest_file(out), out.stat().st_size
    if arguments.json:
        print(json.dumps({"file": out.as_posix(), "sha256": digest, "bytes": size, "files": held}, indent=2))
    else:
        print(f"{out}: {len(held)} files, {size / 1e6:.1f} MB, sha256 {digest}")
    return 0
