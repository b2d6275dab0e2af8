"""``search``: the settings of a model's entry that `repix search` tries, and how often."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, model_validator

from repix.config.models import Recipe
from repix.config.reader import Settings
from repix.errors import UserError

Value = bool | int | float | str | None


class Between(Settings):
    """Numbers between two ends, both of them included; whole ones where both ends are.

    Attributes:
        low, high: the ends.
        log: whether all orders of magnitude are equally likely.
    """

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Between:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log takes numbers above 0, and low is {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or isinstance(value, int) or value.is_integer())


def _values(name: str, given: Any) -> Between | tuple[Value, ...]:
    """Return what a setting of the space may be.

    Raises:
        ValueError: it is neither two ends nor a list of values; the setting is named.
    """
    if isinstance(given, Between):
        return given
    if isinstance(given, list | tuple):
        if not all(isinstance(one, Value) for one in given):
            raise ValueError(f"space.{name}: a list has numbers, words, true, false or null")
        if len(set(given)) < 2:
            raise ValueError(f"space.{name}: a list has two different values or more")
        return tuple(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"space.{name}: {given!r}: write {{low: 1, high: 10}}, or a list to choose from")
    text = [end for end in ("low", "high") if isinstance(given.get(end), str)]
    if text:
        raise ValueError(f"space.{name}.{text[0]}: {given[text[0]]!r} is text; write a number, without quotes")
    try:
        return Between.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["space", name, *map(str, first["loc"][:1])])
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


class Search(Settings):
    """``search``: read by `repix search` alone; no stage depends on it.

    Attributes:
        dataset, model: names of entries: what is trained on, and the recipe that is changed.
        seed: of all trials.
        trials: how many, those that were stopped early included. The first is the entry as it stands.
        prune: whether a trial is stopped whose score on the val split is below the median of the others at the
            same epoch.
        space: a setting of the model's entry, such as ``loss.l1``, and what it may be: ``{low, high, log}``, or a
            list to choose from.
    """

    dataset: str
    model: str
    seed: int = Field(default=0, ge=0)
    trials: int = Field(default=20, ge=2)
    prune: bool = True
    space: dict[str, Between | tuple[Value, ...]] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _named_space(cls, given: Any) -> Any:
        space = given.get("space") if isinstance(given, Mapping) else None
        if not isinstance(space, Mapping):
            return given
        return {**given, "space": {str(name): _values(str(name), values) for name, values in space.items()}}


def changed(entry: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's entry with other values at dotted keys; groups that it leaves out are made."""
    new = copy.deepcopy(dict(entry))
    for name, value in values.items():
        *groups, last = name.split(".")
        group = new
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise UserError(f"params.yaml: search.space.{name}: {part} is a value, and has nothing in it")
        group[last] = value
    return new


def own(recipe: Recipe, name: str) -> Any:
    """Return what a recipe has at a dotted key, defaults included."""
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value
