"""Every private attribute of a library that product code uses is listed here, with the reason for it.

Private means a leading underscore. `asgi.transport` also relies on attributes of uvicorn that have none:
`tests/asgi/test_transport.py` checks those.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("service_registry", "registry_project")

REASONS = {
    ("registry_project/devstack/processes.py", "_exit"): "Python documents it, for the child between fork and exec.",
    ("service_registry/api/request_log.py", "_cached_user"): (
        "Whether Django's middleware has read the user already: request.user would query the database for a log line."
    ),
    ("service_registry/database/base.py", "_nodb_cursor"): (
        "Django's hook for the connection that creates a database, which takes longer than the deadline of statements."
    ),
    ("service_registry/database/base.py", "_queries"): (
        "psycopg has no public name for the length up to which it keeps conversions. tests/database fails when it goes."
    ),
    ("service_registry/database/connection.py", "_WaitTimeout"): (
        "Connection.wait() documents it as the error of its timeout; psycopg has no public one."
    ),
    **{
        ("service_registry/request_metrics.py", name): (
            "The values of a histogram: Prometheus's library adds one observation at a time, each in two files."
        )
        for name in ("_buckets", "_sum")
    },
}

Trees = dict[str, ast.Module]


def parse_packages() -> Trees:
    """Return the syntax tree of each module, by its path."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.endswith("__") and name.isidentifier()


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def find_defined_names(trees: Trees) -> set[str]:
    """Return the names that our packages define as functions, methods, classes, variables or attributes of self."""
    names: set[str] = set()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            names.add(node.attr)
    return names


def find_private_names(tree: ast.Module, ours: set[str]) -> Iterator[str]:
    """Yield private names of libraries: attributes, parts of imports, and strings that are arguments, as of getattr().

    An attribute of `self` that our packages define is ours. One of `super()` never is: it overrides a library's.
    """
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            names = [] if is_own(node) and node.attr in ours else [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in PACKAGES:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Call):
            names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        yield from filter(is_private, names)


def test_private_attributes_of_libraries_are_those_listed_here() -> None:
    trees = parse_packages()
    ours = find_defined_names(trees)
    used = {(path, name) for path, tree in trees.items() for name in find_private_names(tree, ours)}
    assert used == set(REASONS)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import library\nlibrary._private()", ["_private"]),
        ("from library._private import public", ["_private"]),
        ("from library import _private", ["_private"]),
        ("import library._private.public", ["_private"]),
        ("getattr(request, '_private', None)", ["_private"]),
        ("vars(request).get('_private')", ["_private"]),
        ("class A(Base):\n    def _ours(self): return super()._ours()", ["_ours"]),
        ("class A(Base):\n    def a(self): return self._private", ["_private"]),
        ("class A(Base):\n    def a(self): self._ours = 1; return self._ours", []),
        ("error.__cause__, _ignored", []),
    ],
)
def test_private_name_in_source_is_found(source: str, names: list[str]) -> None:
    tree = ast.parse(source)
    assert list(find_private_names(tree, find_defined_names({"": tree}))) == names
