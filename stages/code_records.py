"""code: records of what every stage runs, so that a change re-runs those whose results it can change.

src/, stages/ and params.yaml -> code/<stage>/<model>.json (all.json where a stage has no model),
kept in git. Comments, docstrings, formatting and all that no result depends on are left out:
see src/repix/provenance/code.py. As the first stage it also checks the whole grid of params.yaml:
a mistake that only a later stage would meet is said before anything works, and so are packages that
the outs were made with and that are others now, and folders of one's own whose files have changed.
"""

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from repix import paths, stage
    from repix.config import check, reader
    from repix.config.archive import Archive
    from repix.config.run import Grid
    from repix.data import sources
    from repix.digests import Digests
    from repix.files import atomic_folder
    from repix.provenance import code, pipeline, verify
except ModuleNotFoundError as error:  # the first stage: every `dvc repro` of another Python ends here
    sys.exit(f"repix: {sys.executable} has no {error.name}: activate the environment first, by . .venv/bin/activate")


def main() -> None:
    """Check the grid, and write the records."""
    check.grid()
    told = check.warnings()
    digests = Digests(paths.WORK / "digests")
    for name in reader.read("run", Grid).datasets:
        archive = reader.read(f"datasets.{name}.archive", Archive)
        if path := sources.changed(archive.urls, archive.sha256, paths.RAW / name / "archive.json", digests):
            told.append(
                f"{path}: is another than what datasets.{name} took of it; "
                f"`repix add {shlex.quote(str(path))} --name {name}` takes it as it is now"
            )
    for line in told:
        print(f"repix: warning: {line}", file=sys.stderr)
    records = pipeline.code_records(Path())
    with atomic_folder(code.FOLDER) as folder:
        for path, record in records.items():
            record.write(folder / Path(path).relative_to(code.FOLDER))
    # DVC compares files and params: it would not say so.
    if others := verify.other_packages(Path()):
        print(f"repix: {others}", file=sys.stderr)


if __name__ == "__main__":
    stage.run(main, __doc__, profiled=False)
