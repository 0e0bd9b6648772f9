"""Start an ASGI and a WSGI server over one database, and stop them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from registry_project.devstack.processes import free_port
from tests.front_ends.client import FrontEnd, Request
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]

# As `make run` starts it, with one process and the default log format.
ASGI = (
    *("-m", "uvicorn", "registry_project.asgi:application", "--http=registry_project.asgi:Connection"),
    *("--lifespan=on", "--no-access-log", "--log-level=warning"),
)
NAMES = "asgi", "wsgi"
WSGI = ("-m", "tests.front_ends.wsgi_server")

GROUP = """
WITH made AS (INSERT INTO auth_group (name) VALUES (%s) RETURNING id)
INSERT INTO auth_group_permissions (group_id, permission_id)
SELECT made.id, p.id FROM made, auth_permission p JOIN django_content_type t ON t.id = p.content_type_id
WHERE t.app_label = 'service_registry' AND p.codename = ANY (%s)
"""


@contextmanager
def migrated_database(groups: dict[str, frozenset[str]]) -> Iterator[str]:
    """Create a database on the PostgreSQL of the tests, with these groups and their permissions. Yields its URL."""
    url = urlsplit(os.environ["DATABASE_URL"])
    name = f"front_ends_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    new = url._replace(path=f"/{name}").geturl()
    with psycopg.connect(url.geturl(), autocommit=True) as administration:
        administration.execute(f"DROP DATABASE IF EXISTS {name}")  # of a run that was killed
        administration.execute(f"CREATE DATABASE {name}")
        try:
            environment = environment_of(new)
            run = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
            subprocess.run(run, env=environment, cwd=ROOT, check=True, timeout=120)
            with psycopg.connect(new) as connection, connection.cursor() as cursor:
                cursor.executemany(GROUP, [(name, sorted(granted)) for name, granted in groups.items()])
            yield new
        finally:
            administration.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def unreachable(database_url: str) -> Iterator[None]:
    """Close all sessions of a database, and let none begin."""
    name = urlsplit(database_url).path.removeprefix("/")
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as administration:
        administration.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            administration.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            administration.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def environment_of(database_url: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "DEBUG": "true",
        "REGISTRY_DEFAULT_TTL_SECONDS": "86400",  # no instance may expire during a test
        "REGISTRY_HEALTH_NETWORKS": "10.0.0.0/8",
        "REGISTRY_MAX_INSTANCES_PER_OWNER": "1000000",
        "REGISTRY_MAX_SERVICES_PER_OWNER": "1000000",
    }


@contextmanager
def serving(
    database_url: str,
    directory: Path,
    suffix: str = "",
    module: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[tuple[FrontEnd, FrontEnd]]:
    """Start both front ends, and stop them at the end.

    Args:
        suffix: appended to the name of each front end for its namespace.
        module: a module to run instead of the servers; its arguments are the front end's name and port.
        variables: environment variables of both.
    """
    ports = free_port(), free_port()
    commands: list[Sequence[str]] = [[*ASGI, f"--port={ports[0]}"], [*WSGI, str(ports[1])]]
    if module:
        commands = [("-m", module, name, str(port)) for name, port in zip(NAMES, ports, strict=True)]
    fronts = tuple(FrontEnd(name, name + suffix, port) for name, port in zip(NAMES, ports, strict=True))
    started: list[subprocess.Popen[bytes]] = []
    environment = environment_of(database_url) | dict(variables or {})
    with ExitStack() as stack:
        output = stack.enter_context((directory / f"output{suffix}.log").open("ab"))
        for command, front in zip(commands, fronts, strict=True):
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, cwd=ROOT, stdout=output, stderr=output
            )
            started.append(process)
            stack.callback(process.wait)
            stack.callback(process.kill)
            stack.callback(front.close)
        for front, process in zip(fronts, started, strict=True):
            wait_for(partial(is_ready, front, process))
        yield fronts[0], fronts[1]


def is_ready(front: FrontEnd, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"the server of {front.name} has ended"
    try:
        return front.ask(Request("GET", "/readyz")).status == 200
    except OSError:
        return False
