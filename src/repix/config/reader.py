"""Reading params.yaml: every mistake is one line with file, key, value, and what is allowed."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_serializer
from pydantic_core import PydanticCustomError

from repix import yaml12
from repix.errors import UserError
from repix.paths import NO_PROJECT

FILE = "params.yaml"


def only(*kinds: str, **options: Any) -> Any:
    """Return a pydantic ``Field`` of an option that these kinds alone have; see :class:`Settings`."""
    return Field(json_schema_extra={"only": kinds}, **options)


class Settings(BaseModel):
    """Base of every typed group of parameters: frozen, unknown keys refused.

    ``KIND`` names the field, written before the others, that says which kind this is, such as ``kind``
    of a generator. An option declared by :func:`only` is refused where another kind is chosen, and is
    no part of what :meth:`model_dump` records of it.
    """

    KIND: ClassVar[str] = ""

    # Not strict: a number in quotes is a number all the same. Infinity and NaN have no place in a digest of parameters.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Lax reading takes true for 1.
        asked = cls.model_fields[info.field_name].annotation
        if asked is not bool and any(isinstance(one, bool) for one in (value if isinstance(value, list) else [value])):
            raise ValueError("true and false have no meaning here")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get(cls.KIND)
        if kind is not None and info.field_name not in (has := cls.options(kind)):
            raise not_of_kind(kind, info.field_name, has)
        return value

    @model_serializer(mode="wrap")
    def _without_other_kinds(self, dump):
        whole = dump(self)
        if not self.KIND:
            return whole
        has = self.options(getattr(self, self.KIND))
        return {name: value for name, value in whole.items() if name in has}

    @classmethod
    def options(cls, kind: str) -> list[str]:
        """Return the names of the fields that a ``kind`` of these settings has."""
        found = []
        for name, field in cls.model_fields.items():
            kinds = (field.json_schema_extra or {}).get("only")
            if kinds is None or kind in kinds:
                found.append(name)
        return found


def not_of_kind(kind: str, name: str, has: list[str]) -> PydanticCustomError:
    """Return the error of an option that this kind of settings does not have."""
    text = f"{'an' if kind[0] in 'aeio' else 'a'} {kind} has no {name}; it has {', '.join(has)}"
    return PydanticCustomError("not_of_kind", "{text}", {"text": text})


S = TypeVar("S", bound=Settings)


def nearest(given: str, allowed) -> str:
    """Return ``; did you mean 'x'?`` for the allowed name closest to ``given``, or nothing."""
    close = difflib.get_close_matches(str(given), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def load(path: str | Path = FILE) -> dict[str, Any]:
    """Return the whole parameter file as plain dicts and lists.

    Raises:
        UserError: the file is missing, unreadable, is not YAML, or gives a key twice.
    """
    path = Path(path)
    try:
        tree = yaml12.read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: {NO_PROJECT}") from None
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


def _place(error: dict, model: type[BaseModel]) -> tuple[list[str | int], type[BaseModel]]:
    """Return the keys that lead to an error, and the settings that the last of them belongs to.

    pydantic adds parts that are no keys: which type of a union, which validator.
    """
    place: list[str | int] = []
    owner: type[BaseModel] | None = model
    innermost = model
    for part in error["loc"]:
        if owner is not None:
            place.append(part)
            innermost = owner
            annotation = getattr(owner.model_fields.get(str(part)), "annotation", None)
            owner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
        elif isinstance(part, int):
            place.append(part)
    return place, innermost


def _homes(model: type[BaseModel], name: Any) -> list[str]:
    """Return where settings of a ``model`` have a key of this name, at the top or in a group: ``images.load_size``."""
    found = [name] if name in model.model_fields else []
    for group, field in model.model_fields.items():
        settings = field.annotation
        if isinstance(settings, type) and issubclass(settings, BaseModel) and name in settings.model_fields:
            found.append(f"{group}.{name}")
    return found


def _explain(errors: list[dict], model: type[BaseModel], key: str) -> str:
    """Turn the pydantic errors of one place into ``key.path: what was given, what is allowed``."""
    error = errors[0]
    place, owner = _place(error, model)
    path = ".".join([key, *map(str, place)])
    given = repr(error.get("input"))
    given = given if len(given) <= 80 else f"{given[:76]} ..."
    if error["type"] == "extra_forbidden":
        names = list(owner.model_fields)
        if homes := _homes(model, place[-1]):
            return f"{path}: belongs to another group: write {' or '.join(f'{key}.{home}' for home in homes)}"
        return f"{path}: unknown key{nearest(place[-1], names)}; known keys: {', '.join(names)}"
    if error["type"] == "missing":
        return f"{path}: missing; give it a value"
    if error["type"] == "literal_error":
        allowed = error["ctx"]["expected"]
        names = [name.strip(" '") for name in allowed.replace(" or ", ",").split(",")]
        return f"{path}: {given} is not one of {allowed}{nearest(error['input'], names)}"
    if error["type"] == "not_of_kind":
        return f"{path}: {error['msg']}"
    messages = dict.fromkeys(_PLAIN.get(one["type"], one["msg"].removeprefix("Value error, ")) for one in errors)
    message = ", or ".join(f"{text[0].lower()}{text[1:]}" for text in messages)
    message = message.replace("tuple should", "list should").replace(" after validation", "")
    # What two keys have to do with each other is told of the whole group, which need not be repeated.
    whole = isinstance(error.get("input"), dict) or message.startswith(given)
    return f"{path}: {message}" if whole else f"{path}: {given}: {message}"


_PLAIN = {"tuple_type": "input should be a list", "model_type": "input should be a mapping of its keys"}


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
        problems: dict[tuple, list[dict]] = {}
        # First the keys that are none: what seems to be missing may only be misspelt, or in the wrong place.
        for problem in sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"):
            problems.setdefault(tuple(_place(problem, model)[0]), []).append(problem)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {_explain(next(iter(problems.values())), model, key)}{more}") from None


def read(key: str, model: type[S], path: str | Path = FILE) -> S:
    """Return the settings under the dotted ``key`` as ``model``."""
    return parse(section(key, path), model, key, path)
