"""Imported by Python at its start where this folder is on its path; see checks/support/watch.py."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("watch", Path(__file__).parents[1] / "watch.py")
_watch = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_watch)
_watch.follow()
