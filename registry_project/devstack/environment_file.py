"""The environment of the running embedded registry, in a file, so that a second shell finds its database and issuer."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry_project import env

BASE_DIR = Path(__file__).resolve().parent.parent.parent


def data_directory() -> Path:
    """`REGISTRY_DATA_DIR`, read before the settings can be: they need what this file holds."""
    return env.path("REGISTRY_DATA_DIR", BASE_DIR / "var")


def location() -> Path:
    return data_directory() / "environment"


def write(variables: Mapping[str, str]) -> None:
    """Replace the file whole, readable by its owner alone: it holds the password of the database."""
    unfinished = location().with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in variables.items())
    unfinished.replace(location())


def remove() -> None:
    location().unlink(missing_ok=True)


def read() -> dict[str, str]:
    """The variables of the running registry; empty when none runs."""
    try:
        return dict(pairs(location().read_text()))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}


def pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name, value


def adopt() -> None:
    """Set what the running registry uses, where this process has no value of its own."""
    for name, value in read().items():
        os.environ.setdefault(name, value)
