"""The fenced commands of the pages: what stands in them, and which are marked as not run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- not run: (\S[^\n]*) -->\n)?```(console|bash|sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block of commands or of Python.

    Attributes:
        page: its file, from the root of the repository.
        line: the number of its first line in the page.
        language: what stands after the fence.
        text: what stands in it.
        reason: why it is not run; empty where it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str

    def commands(self) -> list[tuple[str, list[str]]]:
        """Return each command with the lines that the page shows as its output."""
        prompt = "$ " if self.language == "console" else ""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.startswith(prompt) and line.strip():
                found.append((re.split(r"\s+# ", line.removeprefix(prompt))[0].strip(), []))
            elif line.strip():
                found[-1][1].append(line)
        return [(command, shown) for command, shown in found if not command.startswith("#")]


def blocks() -> list[Block]:
    """Return all fenced blocks of commands and of Python, page by page."""
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start(2)) + 2
            found.append(Block(path.relative_to(ROOT).as_posix(), line, match[2], match[3], match[1] or ""))
    return found
