"""The code that a stage runs: which files, found without running them, and a digest of what each computes.

A stage re-runs when this changes, and only then. So two things are left out, because they cannot
move a bit of an out (tests/test_pipeline.py runs the route with and without them):

- of each file: comments, docstrings, formatting and positions (:func:`syntax_digest`);
- of the closure: :mod:`repix.tracking`, which a stage tells of its work and asks for nothing, of
  :mod:`repix.registry` all that the stage's parameters do not choose, and :mod:`repix.api`, which the package
  offers to its users and nothing that a stage runs may use (tests/test_architecture.py).
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Self, TypeVar

from repix.files import digest_file
from repix.schemas import Record

FOLDER = "code"  # one record for each stage, and where a model decides, for each model
WITHOUT_MODEL = "all"
LEFT_OUT = ("repix.tracking", "repix.api")
REGISTRY = "repix.registry"
PACKAGE = Path("src/repix")
TEMPLATES = "templates"  # folder beside a module, whose file "<module>.<kind>" is its page

# Distributions whose version can move bits -> the module that they are imported by.
BITS = {
    "ai-edge-litert": "ai_edge_litert",
    "h5py": "h5py",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "jinja2": "jinja2",
    "keras": "keras",
    "markupsafe": "markupsafe",
    "ml-dtypes": "ml_dtypes",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "pillow": "PIL",
    "pytorch-fid": "pytorch_fid",
    "scikit-image": "skimage",
    "scipy": "scipy",
    "tensorflow": "tensorflow",
    "tifffile": "tifffile",
    "torch": "torch",
    "torchvision": "torchvision",
}

# Distributions that compute on an NVIDIA GPU: not imported, but loaded by those above where there is a driver.
_OF_A_GPU = re.compile("jax-cuda.*|nvidia-(?!ml-py).*|triton|tensorrt.*")
DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/dxg"))  # Linux's, and that of Windows below it

T = TypeVar("T")
Chosen = Mapping[str, Iterable[str]]  # table of repix.registry -> names that the parameters choose


@lru_cache(maxsize=4000)
def _read(path: Path, stamp: tuple[int, int]) -> bytes:
    return path.read_bytes()


def _asked(function: Callable[..., T], path: Path, *arguments: Any) -> T:
    """Return what a function says of a file's text. A file is read once as long as it does not change.

    Raises:
        SyntaxError, ValueError: what the function raises, with the file's name.
    """
    seen = path.stat()
    try:
        return function(_read(path, (seen.st_mtime_ns, seen.st_size)), *arguments)
    except SyntaxError as error:
        error.filename = str(path)
        raise
    except ValueError as error:
        raise ValueError(f"{path}:{error}") from None


@cache
def _parsed(text: bytes) -> ast.Module:
    with warnings.catch_warnings():  # they are told, with the file's name, where it is imported
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _canonical(node: Any) -> str:
    """Return the one text of a piece of syntax: no positions, no docstrings, nothing that is empty.

    What is empty is left out so that fields which a later Python adds to its syntax change nothing.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
            if value not in (None, []) and name not in ("kind", "type_comment"):
                fields.append(f"{name}={_canonical(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    return f"{type(node).__name__}:{node!r}"


def _digest(node: Any) -> str:
    return hashlib.sha256(_canonical(node).encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _digest_of(text: bytes) -> str:
    return _digest(_parsed(text))


def syntax_digest(path: Path) -> str:
    """Return the sha256 of what a Python file computes: its syntax without comments, docstrings and positions.

    Raises:
        SyntaxError: the file is not Python.
    """
    return _asked(_digest_of, path)


def _is_type_checking(test: ast.expr) -> bool:
    """Whether an ``if`` asks for TYPE_CHECKING, whose body never runs."""
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def _nodes(node: ast.AST) -> Iterable[ast.AST]:
    """Yield every node that can run, in functions and classes too."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        skips = isinstance(node, ast.If) and _is_type_checking(node.test)
        waiting += node.orelse if skips else ast.iter_child_nodes(node)


def imported_names(path: Path, module: str | None = None) -> list[str]:
    """Return the dotted names that a file imports, anywhere in it, sorted.

    ``from a import b`` gives ``a`` and ``a.b``, since ``b`` may be a module. Imports under
    ``if TYPE_CHECKING`` are left out. ``importlib.import_module`` counts as well; given an
    f-string it stands for every module whose name begins with the fixed part, as ``prefix*``.

    Args:
        path: a Python file.
        module: its own dotted name, which relative imports start from; None leaves those out.

    Raises:
        ValueError: ``import_module`` has another name or is given something other than a whole literal
            name, so that what the file imports cannot be read from it.
    """
    package = module if path.name == "__init__.py" or module is None else module.rpartition(".")[0]
    return list(_asked(_imported_names, path, package))


@cache
def _imported_names(text: bytes, package: str | None) -> list[str]:
    names: set[str] = set()
    for node in _nodes(_parsed(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level and package is None:
                continue
            if node.level:
                parts = package.split(".") if package else []
                kept = parts[: len(parts) - (node.level - 1)]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
            if renamed := [alias for alias in node.names if alias.name == "import_module" and alias.asname]:
                raise ValueError(f"{node.lineno}: import_module by its own name, not as {renamed[0].asname}")
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            if called in ("import_module", "__import__"):
                given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "name")]
                names.add(_dynamic_name(given[0] if given else node))
    # A table's name is there by its import, with which all that it may lead to is followed.
    tables = {name for name in names if name.startswith(f"{REGISTRY}.") and name.endswith("[]")}
    if unknown := sorted(tables - {f"{name}[]" for name in names}):
        raise ValueError(f" {unknown[0]}: import the table from {REGISTRY} by its own name")
    return sorted(names - tables)


def _dynamic_name(argument: ast.expr) -> str:
    """Return what ``import_module`` is given: a name, or ``prefix*`` for f"prefix{...}".

    ``TABLE[...]`` and ``TABLE[...].module`` give ``repix.registry.TABLE[]``.
    """
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and not argument.value.startswith("."):
        return argument.value
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        return f"{argument.values[0].value}*"
    held = argument.value if isinstance(argument, ast.Attribute) else argument
    if isinstance(held, ast.Subscript) and isinstance(held.value, ast.Name) and held.value.id.isupper():
        return f"{REGISTRY}.{held.value.id}[]"
    raise ValueError(
        f"{argument.lineno}: import by a literal name, an f-string or a table of {REGISTRY}, so that lineage can see it"
    )


class CodeRecord(Record):
    """What a stage runs: ``code/<stage>/<model>.json``, or ``all.json`` where it has no model. In git.

    A stage depends on its record, so it re-runs when the record changes, and a pull request
    shows which records a change touches.

    Attributes:
        code: what :meth:`Closure.digests` gave.
    """

    SCHEMA = "repix.code/1"
    IN_GIT = True
    stage: str
    model: str | None
    code: dict[str, str]


def _tables(registry: Path) -> dict[str, dict[str, ast.expr]]:
    """Return table -> name -> value, for each dict that a registry file spells out."""
    found = {}
    for node in _asked(_parsed, registry).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if targets and isinstance(targets[0], ast.Name) and isinstance(node.value, ast.Dict):
            found[targets[0].id] = {
                ast.literal_eval(k): v for k, v in zip(node.value.keys, node.value.values, strict=True)
            }
    return found


@cache
def _files_of(name: str, source: Path, package: str, beside: Path) -> list[tuple[Path, str]]:
    """Return the files that importing a dotted name runs, with their own dotted names.

    Args:
        name: such as ``repix.data.images``, or ``prefix*`` for every module that begins so.
        source, package: the folder that holds the package, and its name.
        beside: the script's folder, where all other names are looked for.
    """
    if any(name == one or name.startswith(f"{one}.") for one in LEFT_OUT):
        return []
    if name.endswith("*"):
        folder, _, prefix = name[:-1].rpartition(".")
        files = sorted(source.joinpath(*folder.split(".")).glob(f"{prefix}*.py"))
        return [found for file in files for found in _files_of(f"{folder}.{file.stem}", source, package, beside)]
    parts, found = name.split("."), []
    base = source if parts[0] == package else beside
    for end in range(1, len(parts) + 1):
        place, dotted = base.joinpath(*parts[:end]), ".".join(parts[:end])
        if (place / "__init__.py").is_file():
            found.append((place / "__init__.py", dotted))
        elif place.with_suffix(".py").is_file():
            found.append((place.with_suffix(".py"), dotted))
    return found


class Closure:
    """Every file of ours that a stage script may import, and what is chosen of the registry.

    Followed are imports of the package and of the script's neighbours, at module level and
    inside functions, with the ``__init__.py`` of every package on the way. Templates of a followed
    module count as code: ``templates/<its name>.*`` beside it (:mod:`repix.pages`).

    Args:
        script: the stage's script, ``<repository>/stages/<name>.py`` where the package lies elsewhere.
        package: the package's folder, ``<repository>/src/<name>``, or wherever it is installed.
        chosen: table of the registry -> names whose modules are followed where somebody imports the
            table; a table that is not mentioned is followed whole.

    Attributes:
        files: paths relative to the repository, sorted; the script is among them. Those of a package that is
            installed are named ``src/<name>/...`` all the same: records do not tell where it lies.
        places: path -> where that file is.

    Raises:
        ValueError: an import cannot be read (see :func:`imported_names`).
    """

    def __init__(self, script: Path, package: Path, chosen: Chosen | None = None):
        self.package, script = package.resolve(), script.resolve()
        self._source, self._beside = self.package.parent, script.parent
        self._registry = self._source / Path(*REGISTRY.split(".")).with_suffix(".py")
        self._chosen = chosen or {}
        self._values: dict[str, ast.expr] = {}  # "<table>.<name>" -> its value in the registry
        found, waiting = {script: ""}, [script]
        while waiting:
            path = waiting.pop()
            for name in self._names(path, found[path] or None):
                for file, dotted in _files_of(name, self._source, self.package.name, self._beside):
                    if file not in found:
                        found[file] = dotted
                        waiting.append(file)
        self.places = {self._named(path): path for path in sorted(found)}
        self.files = sorted(self.places)

    def _named(self, path: Path) -> Path:
        """Return a file's path as records have it."""
        if path.is_relative_to(self.package):
            return PACKAGE.parent / path.relative_to(self._source)
        return path.relative_to(self._beside.parent)

    def _names(self, path: Path, module: str | None) -> Iterable[str]:
        """Yield the dotted names that a file imports, those behind the tables of the registry too."""
        if path == self._registry:
            return
        for name in imported_names(path, module):
            yield name
            table = _tables(self._registry).get(name.rpartition(".")[2]) if name.startswith(f"{REGISTRY}.") else None
            for key in self._chosen.get(name.rpartition(".")[2], table) if table else ():
                if key in table:  # a name that does not exist is the settings' matter
                    self._values[f"{name.rpartition('.')[2]}.{key}"] = table[key]
                    constants = (n.value for n in ast.walk(table[key]) if isinstance(n, ast.Constant))
                    yield from (c for c in constants if isinstance(c, str) and c.startswith(f"{self.package.name}."))

    @classmethod
    def of_stage(cls, root: Path, params: Mapping[str, Any], stage: str, model: str | None = None) -> Self:
        """Return the closure of a stage of the repository ``root``, for a model where it has one.

        Args:
            params: the whole of params.yaml, whose choices count.
        """
        return cls(root / "stages" / f"{stage}.py", _package(root), chosen(params, stage, model))

    @classmethod
    def of_module(cls, root: Path, module: str) -> Self:
        """Return the closure of a module of the package alone, such as ``repix.evaluation.features``."""
        package = _package(root)
        return cls((package.parent / Path(*module.split("."))).with_suffix(".py"), package)

    def digests(self) -> dict[str, str]:
        """Return what the stage runs -> sha256: files by their syntax, chosen lines of the registry, templates."""
        found = {}
        for path, place in self.places.items():
            if place == self._registry:
                tables = _tables(self._registry)
                others = [n for n in _asked(_parsed, self._registry).body if _assigned(n) not in tables]
                found[path.as_posix()] = _digest(ast.Module(body=others, type_ignores=[]))
                found |= {f"{path.as_posix()}:{key}": _digest(value) for key, value in self._values.items()}
            else:
                found[path.as_posix()] = syntax_digest(place)
            for file in (place.parent / TEMPLATES).glob(f"{place.stem}.*"):
                found[(path.parent / TEMPLATES / file.name).as_posix()] = digest_file(file)
        return dict(sorted(found.items()))


def _package(root: Path) -> Path:
    """Return the package's folder of a repository; a project that `repix init` made has none: the installed one."""
    own = root / PACKAGE
    return own if own.is_dir() else Path(__file__).parents[1]


def _assigned(node: ast.stmt) -> str | None:
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else None


def chosen(params: Mapping[str, Any], stage: str, model: str | None) -> dict[str, list[str]]:
    """Return what a tree of params.yaml chooses of the registry for a stage of a model.

    Args:
        params: the whole of params.yaml.
        stage: name of the stage.
        model: name of the model; None for stages that have none.
    """

    def mapping(value: Any) -> Mapping[str, Any]:  # what is none is told of where the grid is checked
        return value if isinstance(value, Mapping) else {}

    entry = mapping(mapping(params.get("models")).get(model))
    asked = mapping(params.get("run")).get("profile", "auto")
    asked = entry.get("profile", "fast") if asked == "auto" else asked
    backend = "jax" if str(asked).partition("-")[0] == "jax" and stage == "train" else "tensorflow"
    found = {"INFERENCE": [backend], "STEPS": [backend]}
    if isinstance(entry.get("system"), str):
        found["SYSTEMS"] = [entry["system"]]
    found["STARTS"] = ["parent"] if entry.get("start_from") else []
    formats = mapping(params.get("export")).get("formats")
    if isinstance(formats, list):
        found["FORMATS"] = formats
    return found


def bit_packages(paths: Iterable[Path], backend: str = "tensorflow") -> tuple[str, ...]:
    """Return the distributions of :data:`BITS` that files use: imported, or required by those.

    A stage that never imports torch has a run key that does not ask for torch's version.

    Args:
        paths: Python files, such as :attr:`Closure.places` holds.
        backend: Keras backend in force. JAX counts under its own alone: elsewhere it moves no
            bits, and it need not be installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    modules = {name.split(".")[0] for path in paths for name in imported_names(path)}
    if backend != "jax":
        modules.discard("jax")
    used = {package for package, module in BITS.items() if module in modules}
    if "keras" in used:
        used.add("tensorflow")  # the backend, which Keras requires only at run time
    waiting = list(used)
    while waiting:
        try:
            required = metadata.requires(waiting.pop()) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, required):
            name = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and name in BITS and name not in used:
                used.add(name)
                waiting.append(name)
    return tuple(sorted(used))


def gpu_packages() -> tuple[str, ...]:
    """Return the installed distributions that compute on an NVIDIA GPU; none where there is no driver."""
    from packaging.utils import canonicalize_name

    if not any(driver.exists() for driver in DRIVERS):
        return ()
    names = {canonicalize_name(one.name) for one in metadata.distributions() if one.name}
    return tuple(sorted(filter(_OF_A_GPU.fullmatch, names)))


def packages_of(paths: Iterable[Path], profile: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the distributions that move the bits of what files compute under a profile.

    Args:
        paths: Python files, such as :attr:`Closure.places` holds.
        profile: :meth:`repix.profile.Profile.record`; empty where none was entered.
    """
    of_gpus = gpu_packages() if profile and not profile.get("portable") else ()  # portable keeps off GPUs
    return (*bit_packages(paths, profile.get("backend", "tensorflow")), *of_gpus)


def environment(packages: Iterable[str]) -> dict[str, str]:
    """Return the Python version (major.minor) and the versions of installed packages.

    Read from package metadata: nothing is imported. A package that is absent is left out.
    Build labels are dropped: an index calls its CPU build of one release ``2.13.0+cpu``,
    another index ``2.13.0``.
    """
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in sorted(packages):
        try:
            found[package] = metadata.version(package).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found
