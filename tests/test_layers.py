"""The structure of the code: imports point one way, and no package or module is part of a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import service_registry

ROOT = Path(service_registry.__file__).parents[1]
PRODUCT = ("service_registry", "registry_project")

# A package, or a module that stands alone, imports only from lower floors. So no two on one floor see each other:
# the replica knows no HTTP, the ASGI handlers do not know the DRF views.
FLOORS = (
    {"rate_limit"},
    {
        "access_models",
        "choices",
        "exceptions",
        "gc_tuning",
        "health_models",
        "json_text",
        "logs",
        "request_metrics",
        "registry_project.env",
    },
    {"models", "sql", "schemas", "database"},
    {"access_rules"},
    {"identity", "metrics", "permissions", "registry_project.settings"},
    {"caller"},
    {"changelog"},
    {"queries"},
    {"manager"},
    {"expiry", "health", "replica", "transfer"},
    {"checks", "http", "pulse"},
    {"admin", "api", "apps", "asgi", "management", "tasks"},
    {"registry_project.asgi", "registry_project.celery", "registry_project.urls", "registry_project.wsgi"},
)
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}
# The development stack of `make run` starts the registry as a separate process. No other package imports it.
DEVSTACK = "registry_project.devstack"
DEVSTACK_MAY_IMPORT = {"checks", "registry_project.env", "registry_project.settings"}
# Packages that may not import a library, however low its floor.
FORBIDDEN_LIBRARIES = {
    "identity": ("rest_framework", "uvicorn", "starlette"),
    "http": ("rest_framework", "uvicorn"),
    "asgi": ("rest_framework",),
    "replica": ("rest_framework", "uvicorn", "django.http"),
    "manager": ("rest_framework", "django.http"),
    "expiry": ("rest_framework", "django.http"),
}


def sources() -> list[Path]:
    return [path for name in PRODUCT for path in (ROOT / name).rglob("*.py") if "migrations" not in path.parts]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sources()}


def imports(path: Path) -> Iterator[str]:
    """The names of the modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield member if member in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def package_of(module: str) -> str:
    """The package that a module belongs to, as FLOORS names it."""
    top, _, rest = module.partition(".")
    name = rest.split(".")[0]
    return name if top == "service_registry" else f"{top}.{name}"


def product_imports(path: Path) -> set[str]:
    return {module for module in imports(path) if module in MODULES and module not in PRODUCT}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PRODUCT])
def test_imports_point_one_way(module: str) -> None:
    package = package_of(module)
    imported = {package_of(each) for each in product_imports(MODULES[module])} - {package}
    if package == DEVSTACK:
        assert imported <= DEVSTACK_MAY_IMPORT
    else:
        assert {each for each in imported if each == DEVSTACK or FLOOR[each] >= FLOOR[package]} == set()


def test_every_package_has_a_floor() -> None:
    assert {package_of(module) for module in MODULES if module not in PRODUCT} == {*FLOOR, DEVSTACK}


@pytest.mark.parametrize("module", [name for name in MODULES if package_of(name) in FORBIDDEN_LIBRARIES])
def test_a_package_does_not_see_the_libraries_of_others(module: str) -> None:
    libraries = FORBIDDEN_LIBRARIES[package_of(module)]
    found = {each for each in imports(MODULES[module]) if each.startswith(libraries)}
    assert found == set()


def test_no_module_is_part_of_an_import_circle() -> None:
    """Depth first: a module that is met again while its own imports are followed closes a circle."""
    graph = {module: product_imports(path) - {module} for module, path in MODULES.items()}
    finished: set[str] = set()
    circles: list[str] = []

    def follow(module: str, trail: list[str]) -> None:
        if module in trail:
            circles.append(" -> ".join([*trail[trail.index(module) :], module]))
        elif module not in finished:
            for each in sorted(graph[module]):
                follow(each, [*trail, module])
            finished.add(module)

    for module in sorted(graph):
        follow(module, [])
    assert circles == []


def test_front_ends_leave_permissions_to_the_table() -> None:
    """Permissions are decided by `Action` and, for single items, by the operations: no front end repeats a rule."""
    front_ends = FLOORS[-2] | {"http"}
    asking = [name for name, path in MODULES.items() if package_of(name) in front_ends and ".may(" in path.read_text()]
    assert asking == []


def test_the_actor_of_commands_is_named_once() -> None:
    named = [name for name, path in MODULES.items() if '"system:command"' in path.read_text()]
    assert named == ["service_registry.management.command_line"]
