"""Files with secrets: created once, then read; only their owner can read them."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

SECRET_BYTES = 50


def new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def read_or_create(path: Path, make: Callable[[], str] = new_secret) -> str:
    """Return the text of a file, and create it from `make()` when it is missing.

    Two processes that create it at the same time get the same text: each writes a temporary file, and the second link
    to the final name fails.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text()
