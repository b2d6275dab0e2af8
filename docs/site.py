"""What the site has beside the pages of docs/: README.md and its like, the reference, and files that pages link to.

MkDocs calls the ``on_...`` functions (``hooks`` of mkdocs.yml); `make docs` builds, with every link checked.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import posixpath
import re
import typing
from pathlib import Path

from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
PLACES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
LINK = re.compile(r"(?<=\]\()([^)#\s]+)((?:#[^)\s]*)?)(?=\))")


def on_config(config):
    """Put pages that the navigation does not name yet under "How to"."""
    named = set(re.findall(r"[\w./-]+\.md", json.dumps(config.nav)))
    how_to = next(part["How to"] for part in config.nav if "How to" in part)
    how_to += [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named]
    return config


def on_files(files, config):
    """Add the pages from outside of docs/, the reference, and the files that pages link to."""
    from mkdocs.structure.files import File

    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in PLACES}
    added = {PLACES[name]: text for name, text in texts.items()} | reference() | {"notebook.md": notebook()}
    for path, text in added.items():
        files.append(File.generated(config, path, content=text))
    texts |= {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    linked = {
        posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        for name, text in texts.items()
        for target, _ in LINK.findall(text)
    }
    for path in sorted(linked):
        if (ROOT / path).is_file() and site_path(path).startswith("repository/"):
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Return a page with its links as the site has them."""
    source = {place: name for name, place in PLACES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return with_links(markdown, source)


def site_path(path: str) -> str:
    """Return where a file of the repository lies on the site; settings of params.yaml are in the reference."""
    if path.startswith("src/repix/config"):
        return "reference/params.md"
    return PLACES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}")


def with_links(text: str, source: str) -> str:
    """Return the text of a file of the repository with links to where things lie on the site."""
    here = posixpath.dirname(source)

    def moved(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(here, match[1]))
        if "://" in match[1] or not (ROOT / target).exists():
            return match[0]
        return posixpath.relpath(site_path(target), posixpath.dirname(site_path(source)) or ".") + match[2]

    # A list may begin right below a paragraph on GitHub; here it needs an empty line.
    text = re.sub(r"(?m)^(?![-*|>]|\d+\. |\s|$)(.*)\n(?=(?:-|1\.) )", r"\1\n\n", LINK.sub(moved, text))
    return text


def notebook() -> str:
    """Return docs/tutorial.ipynb as a page: its text, its code, and nothing that it printed."""
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = [
        "".join(cell["source"]) if cell["cell_type"] == "markdown" else fenced("".join(cell["source"]), "python")
        for cell in cells
    ]
    return "\n\n".join(parts) + "\n"


def fenced(text: str, language: str) -> str:
    """Return a fenced block."""
    return f"```{language}\n{text.rstrip()}\n```"


def reference() -> dict[str, str]:
    """Return the pages of the reference: path -> text, from the typed settings, the parsers and the docstrings."""
    return {
        "reference/params.md": params_page(),
        "reference/commands.md": commands_page(),
        "reference/python.md": python_page(),
    }


def plain(text: str) -> str:
    """Return a docstring's text as Markdown, in one line."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return " ".join(text.split())


def sections(doc: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Return what a docstring says, and for each section such as ``Args`` name -> text."""
    heads = re.split(r"^(Attributes|Args|Raises|Returns):\n", inspect.cleandoc(doc or ""), flags=re.MULTILINE)
    found = {}
    for name, text in zip(heads[1::2], heads[2::2], strict=True):
        if name == "Returns":
            found[name] = {"": plain(text)}
            continue
        entries = re.split(r"^    (?=\S)", text.split("\n\n")[0], flags=re.MULTILINE)[1:]
        pairs = [entry.partition(": ")[::2] for entry in entries]
        found[name] = {one.strip(): plain(what) for names, what in pairs for one in names.split(",")}
    return heads[0].strip(), found


def attributes(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say about each attribute."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= sections(base.__dict__.get("__doc__") or "")[1].get("Attributes", {})
    return found


def type_name(kind) -> str:
    """Return a type as a reader of params.yaml spells it: its words, or number, list, mapping."""
    from repix.config import search

    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in inside)
    if inside and origin in (tuple, list):
        return "list of " + " and ".join(dict.fromkeys(type_name(one) for one in inside if one is not Ellipsis))
    if origin is dict:
        return f"{type_name(inside[0])} -> {type_name(inside[1])}"
    if inside:  # a union
        return " or ".join(dict.fromkeys(type_name(one) for one in inside))
    known = {
        search.Between: "`{low, high, log}`",
        int: "whole number",
        float: "number",
        str: "text",
        bool: "`true`, `false`",
        type(None): "`null`",
    }
    return known.get(kind) or getattr(kind, "__name__", str(kind))


def group(path: str, cls: type) -> str:
    """Return the section of one typed group of params.yaml, and of the groups in it."""
    from repix.config.reader import Settings
    from repix.metrics import METRICS

    said, switches = attributes(cls), {metric.name: f"whether {metric.name} is computed" for metric in METRICS}
    rows, inner = [], []
    for name, field in cls.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            inner.append(group(f"{path}.{name}", kind))
            continue
        bounds = [
            f"{sign} {getattr(one, key)}"
            for one in field.metadata
            for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
            if hasattr(one, key)
        ]
        default = "required" if field.default is PydanticUndefined else f"`{json.dumps(field.default)}`"
        what = said.get(name) or switches.get(name, "")
        only = (field.json_schema_extra or {}).get("only")
        if only:
            what = f"*{' and '.join(only)} alone.* {what}"
        cells = [f"`{name}`", " ".join([type_name(kind), *bounds]), default, what]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = plain(sections(cls.__doc__ or "")[0]) if cls.__dict__.get("__doc__") else ""
    table = "\n".join(["| key | value | default | |", "|---|---|---|---|", *rows]) if rows else ""
    return "\n\n".join(part for part in (f"## {path}", head, table, *inner) if part)


def params_groups() -> dict[str, type]:
    """Return each top level key of params.yaml (with a name below it, where it has entries) and its type."""
    from repix.config import datasets, evaluation, export, gate, limits, models, run, search

    return {
        "run": run.Grid,
        "datasets.NAME": datasets.Dataset,
        "models.NAME": models.Recipe,
        "evaluate": evaluation.Evaluate,
        "features.NAME": evaluation.FeatureWeights,
        "export": export.Export,
        "gate": gate.Gate,
        "limits": limits.Limits,
        "search": search.Search,
    }


def params_page() -> str:
    """Return the reference of params.yaml."""
    begin = (
        "# params.yaml\n\nEvery key, from the types that read it. An entry spells what differs from the defaults; "
        "`-S key=value` sets what is spelled, `-S ++key=value` both."
    )
    return "\n\n".join([begin, *(group(path, cls) for path, cls in params_groups().items())]) + "\n"


def commands_page() -> str:
    """Return the reference of the subcommands: their own help."""
    from repix.cli import COMMANDS

    os.environ["COLUMNS"] = "110"  # argparse's width
    parts = ["# Commands", "They work from any folder of the repository."]
    for name, line in COMMANDS.items():
        module = importlib.import_module(f"repix.commands.{name}")
        parser = argparse.ArgumentParser(
            f"repix {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(parser)
        parts += [f"## repix {name}", f"{line[0].upper()}{line[1:]}.", fenced(parser.format_help(), "text")]
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """Return the reference of what ``import repix`` offers."""
    import repix

    parts = ["# Python", "`import repix` imports nothing else; each name is imported when it is used."]
    for name in sorted(repix.__all__):
        thing = getattr(repix, name)
        parts += described(f"repix.{name}", thing, "##")
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            for key, method in vars(thing).items():
                if inspect.isfunction(method) and not key.startswith("_"):
                    parts += described(f"{name}.{key}", method, "###")
    return "\n\n".join(parts) + "\n"


class Bare(str):
    """An annotation that is shown as it was written."""

    __slots__ = ()
    __repr__ = str.__str__


def signature(function) -> inspect.Signature:
    """Return a function's signature with its annotations as they were written, without quotes."""
    found = inspect.signature(function)
    bare = [
        one.replace(annotation=Bare(one.annotation)) if isinstance(one.annotation, str) else one
        for one in found.parameters.values()
    ]
    returns = Bare(found.return_annotation) if isinstance(found.return_annotation, str) else found.return_annotation
    return found.replace(parameters=bare, return_annotation=returns)


def described(name: str, thing, mark: str) -> list[str]:
    """Return heading, signature and docstring of a function or class."""
    text, parts = sections(thing.__doc__)
    found = [f"{mark} {name}"]
    if inspect.isfunction(thing):
        found.append(fenced(f"{name}{signature(thing)}", "python"))
    found += [plain(paragraph) for paragraph in text.split("\n\n")]
    for title, entries in parts.items():
        found.append(
            f"**{title}**\n\n"
            + "\n".join(f"- `{key}`: {what}" if key else f"- {what}" for key, what in entries.items())
        )
    return found
