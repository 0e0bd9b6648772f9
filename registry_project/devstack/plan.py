"""What `make run` brings along, and what it was given instead: each of database, issuer and broker on its own."""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from registry_project import env
from registry_project.devstack import environment_file, issuer, processes
from registry_project.devstack.exceptions import EmbeddedError
from registry_project.devstack.issuer import clients
from registry_project.devstack.parts import Command
from registry_project.devstack.postgres import Server

GRACEFUL_SECONDS = 5
# How long a killed registry's web server may keep its port while it finishes its requests.
PREDECESSOR_SECONDS = GRACEFUL_SECONDS + 5

# What a second shell needs to work against this registry, where it is set.
SHARED = (
    "DATABASE_URL",
    "DEBUG",
    "OIDC_ISSUER",
    "OIDC_AUDIENCE",
    "OIDC_RP_CLIENT_SECRET",
    "CELERY_BROKER_URL",
    "REGISTRY_BIND",
    "REGISTRY_PORT",
    "PROMETHEUS_MULTIPROC_DIR",
)


@dataclass(frozen=True)
class Plan:
    """The parts to start: the two that may be somebody else's, and those that are always ours."""

    postgres: Server | None
    issuer: Command | None
    web: Command
    workers: list[Command]


def make(data_directory: Path) -> Plan:
    """Complete the environment, check it, and say what is to be started.

    Raises ImproperlyConfigured for a wrong setting, EmbeddedError for a port that is taken.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
    os.environ.setdefault("DEBUG", "true")
    bind, port = env.text("REGISTRY_BIND", "127.0.0.1"), env.integer("REGISTRY_PORT", 8000, 1, 65535)
    os.environ |= {"REGISTRY_BIND": bind, "REGISTRY_PORT": str(port)}
    patience_seconds = PREDECESSOR_SECONDS if environment_file.location().exists() else 0
    require_port("REGISTRY_PORT", bind, port, patience_seconds)
    own = own_issuer(data_directory, port, patience_seconds)
    postgres = own_postgres(data_directory)
    own_metrics(data_directory)
    settings.REGISTRY_PORT  # noqa: B018 - loads the settings, and with them every check of a value
    return Plan(postgres, own, web(), workers())


def own_postgres(data_directory: Path) -> Server | None:
    if env.text("DATABASE_URL"):
        return None
    server = Server(data_directory / "postgres")
    os.environ["DATABASE_URL"] = server.url
    return server


def own_metrics(data_directory: Path) -> None:
    """Give the processes a place to count in. It begins empty: else the files of all earlier ones would be read too."""
    if not env.text("PROMETHEUS_MULTIPROC_DIR"):
        directory = data_directory / "metrics"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def own_issuer(data_directory: Path, web_port: int, patience_seconds: float) -> Command | None:
    if env.text("OIDC_ISSUER"):
        return None
    if not env.flag("DEBUG"):
        raise ImproperlyConfigured("OIDC_ISSUER is not set; with DEBUG off it must be your own provider.")
    port = env.integer("REGISTRY_ISSUER_PORT", web_port % 65535 + 1, 1, 65535)
    require_port("REGISTRY_ISSUER_PORT", issuer.LOOPBACK, port, patience_seconds)
    os.environ["OIDC_ISSUER"] = issuer.url(port)
    os.environ.setdefault("OIDC_RP_CLIENT_SECRET", clients.all_clients(data_directory)[clients.ADMIN].secret)
    return Command("issuer", ["-m", "registry_project.devstack.issuer", f"--port={port}"], patience_seconds=2)


def require_port(name: str, host: str, port: int, patience_seconds: float) -> None:
    """Raise EmbeddedError unless the address is free, or is so within the patience."""
    deadline = time.monotonic() + patience_seconds
    try:
        while not processes.can_listen(host, port):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Port {port} of {host} is in use: stop what listens there, or set {name}.")
            time.sleep(0.1)
    except OSError as error:
        raise EmbeddedError(
            f"Nobody can listen on {host}, port {port}: {error.strerror}; see REGISTRY_BIND and {name}."
        ) from error


def web() -> Command:
    return Command(
        "web",
        [
            *("-m", "uvicorn", "registry_project.asgi:application"),
            *("--host", settings.REGISTRY_BIND, "--port", str(settings.REGISTRY_PORT)),
            *("--workers", str(settings.WEB_PROCESSES), "--lifespan", "on"),
            *("--timeout-graceful-shutdown", str(GRACEFUL_SECONDS), "--no-access-log", "--log-level", "warning"),
            # For the process above several web processes, which loads no settings.
            *("--log-config", "registry_project/uvicorn_logging.json"),
        ],
        patience_seconds=GRACEFUL_SECONDS + 2,
    )


def workers() -> list[Command]:
    """Worker and beat: one process with an in-memory queue, or two with a broker between them."""
    celery = ("-W", "ignore:You're running the worker", "-m", "celery", "--quiet", "--app=registry_project")
    lone = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency=1", "--loglevel=WARNING")
    beat = ("--scheduler=celery.beat:Scheduler", "--pidfile=", "--loglevel=WARNING")
    if env.text("CELERY_BROKER_URL"):
        return [
            Command("worker", [*celery, "worker", *lone], patience_seconds=5),
            Command("beat", [*celery, "beat", *beat], patience_seconds=2),
        ]
    # This one looks whether to end only every two seconds, and a sweep that is cut off rolls back: no need to wait.
    return [Command("worker", [*celery, "worker", *lone], patience_seconds=0.5, death_signal=signal.SIGKILL)]


def shared_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in SHARED if os.environ.get(name)}
