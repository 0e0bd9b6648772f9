"""The shape of the code: imports point one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import service_registry

ROOT = Path(service_registry.__file__).parent

DOORS = {"api", "live", "admin", "acting", "tasks", "management"}
VERBS = {"manager", "expiry", "changes", "permissions", "caller", "catalogue", "filters", "past", "transfer"}
GROUND = {"models", "schemas", "fields", "exceptions", "refusals", "documents", "logs", "metrics", "database"}

# What each may import of the product besides itself.
ALLOWED = {
    **dict.fromkeys(DOORS, VERBS | GROUND | {"identity", "acting"}),
    # The asynchronous doors answer as DRF's do: the same problems, models and lines in the log.
    "live": VERBS | GROUND | {"identity", "api", "content_policy"},
    **dict.fromkeys(VERBS, VERBS | GROUND),
    **dict.fromkeys(GROUND, GROUND),
    "identity": {"models"},
    "apps": VERBS,
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "service_registry" else [f"x.{alias.name}" for alias in node.names]
            yield from names if node.module.split(".")[0] == "service_registry" else ()
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("service_registry."))


def sources() -> list[Path]:
    return [path for path in ROOT.rglob("*.py") if "migrations" not in path.parts]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    imported = {name.split(".")[1] if "." in name else name for name in imports(path)}
    assert imported - {layer} <= ALLOWED.get(layer, set())


def test_no_door_asks_for_a_permission_itself() -> None:
    """The table says who may try an action, and the rooms behind the doors who sees what: no two doors repeat it."""
    of_doors = [path for path in sources() if path.relative_to(ROOT).parts[0].removesuffix(".py") in DOORS]
    assert [str(path.relative_to(ROOT)) for path in of_doors if ".may(" in path.read_text()] == []


def test_who_acts_by_a_command_is_said_once() -> None:
    named = [path for path in sources() if '"system:command"' in path.read_text()]
    assert [str(path.relative_to(ROOT)) for path in named] == ["management/command_line.py"]
