"""What can be said of an address by its text alone: the check says it at the start, the download stage before it asks.

A password or token is never part of a URL here, since params.yaml, dvc.lock and the cards repeat it.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from repix.errors import UserError

SCHEMES = ("https", "http", "file", "synthetic")
_SECRET = re.compile(r"token|secret|passw|^pwd$|signature|^sig$|api-?_?key|^key$|credential|^auth", re.IGNORECASE)
"""Names of query fields that a server takes for who somebody is."""


def check(url: str, entry: str) -> None:
    """Refuse an address that can never be right.

    Args:
        url: of any scheme.
        entry: whose ``urls`` it stands under, for the message.

    Raises:
        UserError: a scheme that repix does not know, no URL, or one with a password or secret in it.
    """
    scheme, shown = url.partition(":")[0].lower(), clean(url)
    if not (":" in url and scheme in SCHEMES):
        shown = clean("".join(url.partition(":")[:2]))  # what follows may hold a password
        raise UserError(
            f"{entry}.urls: {shown!r}: repix knows https://, http://, file: and synthetic:; write file:path for a file "
            f"on this machine"
        )
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises where it is no number)
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise UserError(f"{entry}.urls: {shown!r} is no URL; mend it in params.yaml") from None
    if scheme in ("http", "https"):
        if not parts.hostname:
            raise UserError(f"{entry}.urls: {shown!r} names no host; write {scheme}://host/path")
        if "@" in parts.netloc:
            raise UserError(
                f"{entry}.urls: {shown!r} holds a user or password, which dvc.lock and the cards would publish; "
                f"take it out, and put a line `machine {parts.hostname} login ... password ...` into ~/.netrc"
            )
        for name, value in parse_qsl(parts.query):
            if _SECRET.search(name) and not re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", value):
                raise UserError(
                    f"{entry}.urls: {shown!r} holds a secret ({clean(name)}), which dvc.lock and the cards would "
                    f"publish; write {clean(name)}=$NAME and set the environment variable NAME"
                )
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise UserError(
            f"{entry}.urls: {shown!r} names the host {parts.netloc!r}; "
            "write file:///absolute/path or file:relative/path"
        )
    if scheme == "synthetic":
        generator, options = of_synthetic(url)
        if not re.fullmatch(r"[A-Za-z0-9_]+", generator) or options is None:
            raise UserError(f"{entry}.urls: {shown!r}: write synthetic:generator?option=value&option=value")


def of_synthetic(url: str) -> tuple[str, dict[str, str] | None]:
    """Return generator and options of a ``synthetic:`` URL; None where the options are no options."""
    generator, _, query = url.partition(":")[2].partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        return generator, None
    options = dict(pairs)
    return generator, options if len(options) == len(pairs) else None


def clean(text: str) -> str:
    """Return somebody else's words as one short line: no control characters, no user, password or query of a URL."""
    text = "".join(character if character.isprintable() else " " for character in text)
    text = re.sub(r"(?i)(https?:/*)[^/\s'\"]*@", r"\1", text)
    text = re.sub(r"(?i)((?:https?://|\burl: /)[^\s'\"?#]*)[?#][^\s'\")]*", r"\1", text)
    return " ".join(text.split())[:300]
