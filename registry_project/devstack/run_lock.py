"""One `make run` a data directory."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from registry_project.devstack.exceptions import EmbeddedError


def take(data_directory: Path) -> TextIO:
    """Take the data directory for as long as the returned file is open.

    The lock is the kernel's and ends with the process, however that ends; the number in the file is for people.
    Raises EmbeddedError when another process has it.
    """
    file = open(os.open(data_directory / "run.pid", os.O_RDWR | os.O_CREAT, 0o644), "r+")  # noqa: SIM115 - kept open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EmbeddedError(
            f"A registry (process {file.read().strip() or 'unknown'}) is running with the data in {data_directory}: "
            "stop it first, or set REGISTRY_DATA_DIR and REGISTRY_PORT for a second one."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
