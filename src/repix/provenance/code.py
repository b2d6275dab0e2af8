"""The code that a stage runs: the files that its script imports, found without running them, and their digests."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from repix.files import digest_file

# Distributions whose version can move bits -> the module that they are imported by.
BITS = {
    "ai-edge-litert": "ai_edge_litert",
    "h5py": "h5py",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "keras": "keras",
    "ml-dtypes": "ml_dtypes",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pillow": "PIL",
    "pytorch-fid": "pytorch_fid",
    "scikit-image": "skimage",
    "scipy": "scipy",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "torchvision": "torchvision",
}


def _is_type_checking(test: ast.expr) -> bool:
    """Whether an ``if`` asks for TYPE_CHECKING, whose body never runs."""
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def _nodes(node: ast.AST) -> Iterable[ast.AST]:
    """Yield every node that can run, in functions and classes too."""
    yield node
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _nodes(child)


def imported_names(path: Path, module: str | None = None) -> list[str]:
    """Return the dotted names that a file imports, anywhere in it, sorted.

    ``from a import b`` gives ``a`` and ``a.b``, since ``b`` may be a module. Imports under
    ``if TYPE_CHECKING`` are left out. ``importlib.import_module`` counts as well; given an
    f-string it stands for every module whose name begins with the fixed part, as ``prefix*``.

    Args:
        path: a Python file.
        module: its own dotted name, which relative imports start from; None leaves those out.

    Raises:
        ValueError: ``import_module`` is given something other than a literal name, so that
            what the file imports cannot be read from it.
    """
    names: set[str] = set()
    for node in _nodes(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level and module is None:
                continue
            if node.level:
                package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                kept = package[: len(package) - (node.level - 1)]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            if called in ("import_module", "__import__"):
                names.add(_dynamic_name(node.args[0], path))
    return sorted(names)


def _dynamic_name(argument: ast.expr, path: Path) -> str:
    """Return what ``import_module`` is given: a name, or ``prefix*`` for f"prefix{...}"."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        return f"{argument.values[0].value}*"
    raise ValueError(f"{path}:{argument.lineno}: import by a literal name or f-string, so that lineage can see it")


def import_closure(script: Path, package: Path) -> list[Path]:
    """Return every file of ours that a stage script may import, found without running it.

    Followed are imports of the package and of the script's neighbours, at module level and
    inside functions, with the ``__init__.py`` of every package on the way.

    Args:
        script: the stage's script, inside the repository.
        package: the package's folder, ``<repository>/src/<name>``.

    Returns:
        Paths relative to the repository, sorted; the script is among them.

    Raises:
        ValueError: an import cannot be read (see :func:`imported_names`), or the script
            lies outside the repository.
    """
    package, script = package.resolve(), script.resolve()
    source, root = package.parent, package.parents[1]

    def files_of(name: str) -> Iterable[tuple[Path, str]]:
        """Yield the files that importing a dotted name runs, with their own dotted names."""
        if name.endswith("*"):
            folder, _, prefix = name[:-1].rpartition(".")
            for file in sorted(source.joinpath(*folder.split(".")).glob(f"{prefix}*.py")):
                yield from files_of(f"{folder}.{file.stem}")
            return
        parts = name.split(".")
        base = source if parts[0] == package.name else script.parent
        for end in range(1, len(parts) + 1):
            place, dotted = base.joinpath(*parts[:end]), ".".join(parts[:end])
            if (place / "__init__.py").is_file():
                yield place / "__init__.py", dotted
            elif place.with_suffix(".py").is_file():
                yield place.with_suffix(".py"), dotted

    found = {script: ""}
    waiting = [script]
    while waiting:
        path = waiting.pop()
        for name in imported_names(path, found[path] or None):
            for file, dotted in files_of(name):
                if file not in found:
                    found[file] = dotted
                    waiting.append(file)
    return sorted(path.relative_to(root) for path in found)


def code_digest(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Return path -> sha256 for files given relative to ``root``, with ``/`` in the names."""
    return {Path(path).as_posix(): digest_file(root / path) for path in sorted(paths)}


def bit_packages(paths: Iterable[Path], root: Path, backend: str = "tensorflow") -> tuple[str, ...]:
    """Return the distributions of :data:`BITS` that files use: imported, or required by those.

    A stage that never imports torch has a run key that does not ask for torch's version.

    Args:
        paths: Python files relative to ``root``, such as :func:`import_closure` gives.
        root: the repository.
        backend: Keras backend in force. JAX counts under its own alone: elsewhere it moves no
            bits, and it need not be installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    modules = {name.split(".")[0] for path in paths for name in imported_names(root / path)}
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


def environment(packages: Iterable[str] = tuple(BITS)) -> dict[str, str]:
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
