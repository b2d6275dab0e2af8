"""Reading params.yaml: every mistake is one line with file, key, value, and what is allowed."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from repix.errors import UserError

FILE = "params.yaml"


class Settings(BaseModel):
    """Base of every typed group of parameters: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


S = TypeVar("S", bound=Settings)


class _UniqueKeys(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    """A safe YAML loader that refuses a key given twice (YAML keeps the last, silently)."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise UserError(f"{FILE}:{line}: the key {key!r} is given twice; delete one of the two")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def nearest(given: str, allowed) -> str:
    """Return ``; did you mean 'x'?`` for the allowed name closest to ``given``, or nothing."""
    close = difflib.get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def load(path: str | Path = FILE) -> dict[str, Any]:
    """Return the whole parameter file as plain dicts and lists.

    Raises:
        UserError: the file is missing, is not YAML, or gives a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the repository") from None
    try:
        tree = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping with the keys run, datasets, models, ...")
    return tree


def section(key: str, path: str | Path = FILE) -> Any:
    """Return what stands under a dotted key such as ``datasets.sample``.

    Raises:
        UserError: a part of the key is missing; the nearest existing name is given.
    """
    value: Any = load(path)
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            names = list(value) if isinstance(value, dict) else []
            where = ".".join(walked) or "the file"
            listed = f"; {where} has {', '.join(map(str, names))}" if names else ""
            raise UserError(f"{path}: no {'.'.join([*walked, part])}{nearest(part, names)}{listed}")
        value = value[part]
        walked.append(part)
    return value


def _explain(error: dict, model: type[BaseModel], key: str) -> str:
    """Turn one pydantic error into ``key.path: what was given, what is allowed``."""
    place = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    path = ".".join([key, *map(str, place)])
    given = error.get("input")
    if error["type"] == "extra_forbidden":
        owner = model
        for part in place[:-1]:
            field = owner.model_fields.get(str(part))
            annotation = getattr(field, "annotation", None)
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                break
            owner = annotation
        names = list(owner.model_fields)
        return f"{path}: unknown key{nearest(place[-1], names)}; known keys: {', '.join(names)}"
    if error["type"] == "missing":
        return f"{path}: missing; give it a value"
    if error["type"] == "literal_error":
        allowed = error["ctx"]["expected"]
        names = [name.strip(" '") for name in allowed.replace(" or ", ",").split(",")]
        return f"{path}: {given!r} is not one of {allowed}{nearest(given, names)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {given!r}: {message[0].lower()}{message[1:]}"


def parse(value: Any, model: type[S], key: str, path: str | Path = FILE) -> S:
    """Return ``value`` as the typed settings ``model``; ``key`` is where it was found.

    Raises:
        UserError: one line naming the first wrong key, what was given and what is allowed.
    """
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key}: expected a mapping, got {value!r}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {_explain(problems[0], model, key)}{more}") from None


def read(key: str, model: type[S], path: str | Path = FILE) -> S:
    """Return the settings under the dotted ``key`` as ``model``."""
    return parse(section(key, path), model, key, path)
