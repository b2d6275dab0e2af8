"""How much memory this process has taken."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Return the most memory that was resident for this process, pages of mapped files included.

    Of the system's own account where there is one: what ``getrusage`` says, a process inherits from the one that
    started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1]) * 1024
    except (OSError, TypeError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
