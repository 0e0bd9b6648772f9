"""Read typed settings from environment variables, and from an environment file.

A value that cannot be read raises ImproperlyConfigured with one sentence that names the variable and what it must be.
Values that can be read and are still wrong are found by `service_registry.checks`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

BASE_DIR = Path(__file__).resolve().parent.parent
TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}
POSTGRESQL = ("postgres://", "postgresql://")


def text(name: str, default: str = "", choices: Sequence[str] = ()) -> str:
    value = os.environ.get(name, default).strip()
    if choices and value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def flag(name: str, default: bool = False) -> bool:
    value = os.environ.get(name, str(default)).strip().lower()
    if value not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")
    return value in TRUE


def integer(name: str, default: int, low: int, high: int) -> int:
    value = os.environ.get(name, str(default)).strip()
    if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
        raise ImproperlyConfigured(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    return int(value)


def fraction(name: str, default: float) -> float:
    value = os.environ.get(name, str(default)).strip()
    if not (re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", value, re.ASCII) and 0 <= float(value) <= 1):
        raise ImproperlyConfigured(f"{name} must be a number from 0 to 1, not {value!r}.")
    return float(value)


def text_list(name: str, default: str = "") -> list[str]:
    """Split a comma-separated value; empty parts are left out."""
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def network_list(name: str) -> list[str]:
    """Split a comma-separated list of networks such as 10.0.0.0/8."""
    values = text_list(name)
    for value in values:
        try:
            ip_network(value)
        except ValueError as error:
            raise ImproperlyConfigured(f"{name} must be a list of networks, and {value!r} is none: {error}.") from error
    return values


def path(name: str, default: Path) -> Path:
    return Path(os.environ.get(name, "").strip() or default).resolve()


def new_directory(name: str) -> str:
    """Create the directory that `name` gives, if it is set, and return its path."""
    value = text(name)
    try:
        if value:
            Path(value).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"{name} must be a directory that can be created: {error.strerror}.") from error
    return value


def postgresql_url(name: str) -> dict[str, Any]:
    """Return libpq's parameters of a PostgreSQL address; none when `name` is not set.

    libpq parses the address, which may have several hosts. Its messages may quote the password, and are not shown.
    """
    value = text(name)
    try:
        parameters: dict[str, Any] = conninfo_to_dict(value)
    except (psycopg.ProgrammingError, UnicodeEncodeError):  # UnicodeEncodeError: bytes that are not UTF-8
        parameters = {"port": "unknown"}
    is_readable = value.startswith(POSTGRESQL) and re.fullmatch(r"[0-9,]*", str(parameters.get("port", "")), re.ASCII)
    if value and not is_readable:
        raise ImproperlyConfigured(
            f"{name} must be the address of a PostgreSQL database: postgresql://user:password@host/name; "
            "options of libpq may follow a question mark."
        )
    return parameters


def database(name: str, options: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Return the entry of DATABASES for the address in `name`.

    Arguments:
        options: connection options of libpq, unless the query of the address gives them.
        settings: further members of the entry.
    """
    parameters = postgresql_url(name)
    if not parameters:
        raise ImproperlyConfigured(f"{name} must be set: postgresql://user:password@host/name.")
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    entry = {member: parameters.pop(parameter, "") for member, parameter in names.items()}
    return entry | {"OPTIONS": {**options, **parameters}} | settings


# --- The environment file -------------------------------------------------------------------------------------------


def data_directory() -> Path:
    return path("REGISTRY_DATA_DIR", BASE_DIR / "var")


def default_environment_file() -> Path:
    return data_directory() / "environment"


def read_environment_file(path: Path) -> dict[str, str]:
    """Return the variables of an environment file. Raises OSError.

    Each line is NAME=value. The value is used literally, without quotes or escapes, as in `docker run --env-file`;
    empty lines and lines that begin with # are skipped.
    """
    lines = path.read_text().splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {variable.strip(): value for variable, equals, value in pairs if equals and variable.strip()}


def load_environment_file() -> None:
    """Set the variables of the environment file that this process does not have yet.

    The file is the one that REGISTRY_ENV_FILE names, else `environment` in the data directory when that can be read.
    `manage.py` calls this, so that commands run with the environment of the servers. Servers get theirs from whatever
    starts them.
    """
    chosen = text("REGISTRY_ENV_FILE")
    file = Path(chosen) if chosen else default_environment_file()
    try:
        variables = read_environment_file(file)
        for variable, value in variables.items():
            os.environ.setdefault(variable, value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{file} must have lines NAME=value in UTF-8, without null bytes.") from error
    except OSError as error:
        if chosen:
            raise ImproperlyConfigured(f"REGISTRY_ENV_FILE cannot be read: {error.strerror}.") from error
