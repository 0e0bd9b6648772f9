"""Decide what `make run` starts.

Database, issuer and broker are each the development stack's own unless the environment names another.
"""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from registry_project import env
from registry_project.devstack import DevstackError, issuer, processes
from registry_project.devstack.components import Command
from registry_project.devstack.issuer import clients
from registry_project.devstack.postgres import Server
from service_registry import checks

GRACEFUL_SECONDS = 5
# The web server of a killed registry may keep its port this long while it finishes its requests.
PREDECESSOR_SECONDS = GRACEFUL_SECONDS + 5


@dataclass(frozen=True)
class Plan:
    """The components to start, and the registry's address on this machine."""

    url: str
    postgres: Server | None
    issuer: Command | None
    web: Command
    workers: list[Command]


def make_plan(data_directory: Path) -> Plan:
    """Complete the environment, check the settings, and return what to start.

    Raises ImproperlyConfigured for a wrong setting, DevstackError for a port in use.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.devstack.settings")
    os.environ.setdefault("DEBUG", "true")
    bind, port = env.text("REGISTRY_BIND", "127.0.0.1"), env.integer("REGISTRY_PORT", 8000, 1, 65535)
    os.environ["REGISTRY_PORT"] = str(port)
    os.environ.setdefault("REGISTRY_HEALTH_NETWORKS", "127.0.0.0/8")
    web = plan_web(bind, port, env.integer("WEB_PROCESSES", 1, 1, 64))
    timeout_seconds = PREDECESSOR_SECONDS if env.default_environment_file().exists() else 0
    require_port("REGISTRY_PORT", bind, port, timeout_seconds)
    own_issuer = plan_issuer(data_directory, port, timeout_seconds)
    postgres = plan_postgres(data_directory)
    create_metrics_directory(data_directory)
    checks.require_valid_settings()
    checker = Command("checker", ["manage.py", "check_health"], timeout_seconds=5)
    return Plan(client_url(bind, port), postgres, own_issuer, web, [*plan_workers(), checker])


def client_url(bind: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - nothing is bound here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def plan_postgres(data_directory: Path) -> Server | None:
    if env.text("DATABASE_URL"):
        return None
    server = Server(data_directory / "postgres")
    os.environ["DATABASE_URL"] = server.url
    return server


def create_metrics_directory(data_directory: Path) -> None:
    """Create an empty directory for the metrics of all processes.

    Files of earlier processes would be counted, too.
    """
    if not env.text("PROMETHEUS_MULTIPROC_DIR"):
        directory = data_directory / "metrics"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def plan_issuer(data_directory: Path, web_port: int, timeout_seconds: float) -> Command | None:
    if env.text("OIDC_ISSUER"):
        return None
    if not env.flag("DEBUG"):
        raise ImproperlyConfigured("OIDC_ISSUER is not set; with DEBUG off it must be your own provider.")
    port = env.integer("REGISTRY_ISSUER_PORT", web_port % 65535 + 1, 1, 65535)
    require_port("REGISTRY_ISSUER_PORT", issuer.LOOPBACK, port, timeout_seconds)
    os.environ["OIDC_ISSUER"] = issuer.url(port)
    os.environ.setdefault("OIDC_RP_CLIENT_SECRET", clients.all_clients(data_directory)[clients.ADMIN].secret)
    return Command("issuer", ["-m", "registry_project.devstack.issuer", f"--port={port}"], timeout_seconds=2)


def require_port(name: str, host: str, port: int, timeout_seconds: float) -> None:
    """Raise DevstackError unless the address becomes free within the timeout."""
    deadline = time.monotonic() + timeout_seconds
    try:
        while not processes.can_listen(host, port):
            if time.monotonic() > deadline:
                raise DevstackError(f"Port {port} of {host} is in use: stop what listens there, or set {name}.")
            time.sleep(0.1)
    except OSError as error:
        raise DevstackError(
            f"Cannot listen on {host}, port {port}: {error.strerror}; see REGISTRY_BIND and {name}."
        ) from error


def plan_web(bind: str, port: int, web_processes: int) -> Command:
    return Command(
        "web",
        [
            *("-m", "uvicorn", "registry_project.asgi:application", "--http", "registry_project.asgi:Connection"),
            *("--host", bind, "--port", str(port)),
            *("--workers", str(web_processes), "--lifespan", "on"),
            *("--timeout-graceful-shutdown", str(GRACEFUL_SECONDS), "--no-access-log", "--log-level", "warning"),
            # For uvicorn's parent of several web processes, which does not load the settings.
            *("--log-config", "registry_project/uvicorn_logging.json"),
        ],
        timeout_seconds=GRACEFUL_SECONDS + 2,
    )


def plan_workers() -> list[Command]:
    """Return worker and beat: one process, or two with a broker between them."""
    celery = ("-W", "ignore:You're running the worker", "-m", "celery", "--quiet", "--app=registry_project")
    worker = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency=1", "--loglevel=WARNING")
    beat = ("--scheduler=celery.beat:Scheduler", "--pidfile=", "--loglevel=WARNING")
    if env.text("CELERY_BROKER_URL"):
        return [
            Command("worker", [*celery, "worker", *worker], timeout_seconds=5),
            Command("beat", [*celery, "beat", *beat], timeout_seconds=2),
        ]
    # The solo pool notices SIGTERM only every two seconds, and a sweep that is killed rolls back: no need to wait.
    return [Command("worker", [*celery, "worker", *worker], timeout_seconds=0.5, death_signal=signal.SIGKILL)]
