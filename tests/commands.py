"""Run management commands, in this process or as a subprocess."""

import io
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection

ROOT = Path(__file__).parents[1]


def run(command: str, *arguments: str, **options: Any) -> str:
    """Run a command in this process and return its output."""
    output = io.StringIO()
    call_command(command, *arguments, stdout=output, stderr=output, **options)
    return output.getvalue()


def command_line(command: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "manage.py"), command, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for a subprocess that uses the database of this test."""
    database = connection.settings_dict
    login, server = f"{database['USER']}:{database['PASSWORD']}", f"{database['HOST']}:{database['PORT']}"
    return os.environ | {"DATABASE_URL": f"postgresql://{login}@{server}/{database['NAME']}"}
