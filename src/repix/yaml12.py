"""The one YAML dialect of params.yaml, dvc.yaml and dvc.lock: the one that DVC reads and writes.

DVC uses ruamel.yaml, which follows YAML 1.2: ``yes`` and ``on`` are text, ``010`` is ten and ``2e-4``
a number. PyYAML by itself follows YAML 1.1 and reads each of them as something else, so a file that DVC
has rewritten would change its meaning. Here PyYAML gets ruamel's rules for plain scalars
(``tests/test_yaml12.py`` holds one against the other), and refuses the little that even two readers of
YAML 1.2 disagree about: a date without quotes, a key given twice, a ``%YAML`` line.
"""

from __future__ import annotations

import pickle
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from repix.errors import UserError

_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_FLOAT = re.compile(
    r"""(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))\Z""",
    re.X,
)
_INT = re.compile(r"(?:[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+)\Z")
_BASES = {"0b": 2, "0o": 8, "0x": 16}
DEEPEST = 100  # levels that a text may nest
_DIGITS = 1000  # of a whole number: Python itself writes none of more than 4300
MOST_VALUES = 1_000_000  # that a text may stand for, each as often as it is referred to

_DIRECTIVE = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*%YAML")


_PLAIN = yaml.SafeLoader.yaml_implicit_resolvers
_DATE = next(pattern for tag, pattern in _PLAIN["1"] if tag.endswith(":timestamp"))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """A safe loader with the scalars of ruamel.yaml that refuses a key given twice."""

    yaml_implicit_resolvers: ClassVar[dict] = {}
    merged = 0

    def __init__(self, stream):
        super().__init__(stream)
        self._looked_at: set[int] = set()

    def flatten_mapping(self, node):
        if id(node) not in self._looked_at:  # as it is written: below, keys of others are put beside its own
            self._looked_at.add(id(node))
            self._refuse_repeated(node)
        super().flatten_mapping(node)
        # Merges of merges copy: a few lines can ask for more than there is memory.
        self.merged += len(node.value)
        if self.merged > MOST_VALUES:
            raise _refused(node, f"merges of more than {MOST_VALUES} keys")

    def _refuse_repeated(self, node):
        seen = set()
        for key_node, _ in node.value:
            # Only plain keys can be compared; YAML itself refuses the others, and `<<` is no key.
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _refused(key_node, f"the key {key!r} is given twice; delete one of the two")
            seen.add(key)

    def construct_yaml_int(self, node):
        text = self.construct_scalar(node).replace("_", "")
        sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-")
        if len(digits) > _DIGITS:
            raise _refused(node, f"a number of {len(digits)} digits")
        base = _BASES.get(digits[:2], 10)
        return sign * int(digits if base == 10 else digits[2:], base)

    def construct_yaml_float(self, node):
        text = self.construct_scalar(node).replace("_", "").lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    def construct_yaml_bool(self, node):
        if not _BOOL.match(self.construct_scalar(node)):
            raise _refused(node, f"{node.value!a} is neither true nor false")
        return super().construct_yaml_bool(node)

    def construct_other(self, node):
        raise _refused(node, f"the tag {node.tag!a} stands for no plain value; take it away")

    def construct_date(self, node):
        raise _refused(node, f"{node.value} is a date to some readers of YAML; put it in quotes")


def _refused(node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes any text which YAML 1.1 or 1.2 would take for something else."""

    def ignore_aliases(self, data):
        return True


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", _BOOL, "tTfF"),
    ("float", _FLOAT, "-+0123456789."),
    ("int", _INT, "-+0123456789"),
    ("merge", re.compile(r"<<\Z"), "<"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("value", re.compile(r"=\Z"), "="),
    ("timestamp", _DATE, "0123456789"),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)
_Loader.add_constructor(f"{_TAG}bool", _Loader.construct_yaml_bool)
_Loader.add_constructor(f"{_TAG}timestamp", _Loader.construct_date)
for _name in ("binary", "omap", "pairs", "set"):  # a set has no order, and what holds itself could hide in the others
    _Loader.add_constructor(_TAG + _name, _Loader.construct_other)
_Loader.add_constructor(None, _Loader.construct_other)


def read(path: Path) -> Any:
    """Return what a YAML file holds; see :func:`load`.

    Raises:
        FileNotFoundError: there is no such file; who asks knows what makes it.
        UserError: it cannot be read, is not UTF-8 or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return load(text, str(path))


def load(text: str, where: str) -> Any:
    """Return the plain value (dicts, lists, text, numbers, true, false, null) that a YAML text holds.

    Args:
        text: one YAML document.
        where: the file's name, for the message.

    Raises:
        UserError: it is not YAML, gives a key twice, or holds an unquoted date.
    """
    try:
        return pickle.loads(_loaded(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}{line}: not valid YAML: {problem}") from None


@lru_cache(maxsize=8)
def _loaded(text: str) -> bytes:
    """Return the value of a text, pickled: who asks again gets one of its own, in a hundredth of the time."""
    if _DIRECTIVE.match(text):
        raise yaml.YAMLError("a %YAML line makes readers disagree; delete it")
    _check_depth(text)
    value = yaml.load(text, Loader=_Loader)
    _count(value, {})
    return pickle.dumps(value)


def _count(value: Any, known: dict[int, int]) -> int:
    """Return how many values a value holds, each as often as it is referred to.

    Raises:
        YAMLError: more than :data:`MOST_VALUES`, or a value that holds itself.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES  # of one that holds itself, which has no end
        known[id(value)] = 1 + sum(_count(one, known) for one in (value.values() if isinstance(value, dict) else value))
    if known[id(value)] > MOST_VALUES:
        raise yaml.YAMLError(f"references that stand for more than {MOST_VALUES} values")
    return known[id(value)]


def _check_depth(text: str) -> None:
    """Raise where a text nests too deeply: the loader would overflow the stack, which ends the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            problem = f"nested deeper than {DEEPEST} levels"
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)


def is_plain(text: str) -> bool:
    """Whether a text that :func:`load` reads does without anchors, references and tags, as DVC does."""
    events = yaml.parse(text, Loader=_Loader)
    return not any(getattr(event, mark, None) for event in events for mark in ("anchor", "tag"))


def dump(value: Any) -> str:
    """Return a plain value as YAML, which any reader of YAML 1.1 or 1.2 reads back as that value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
