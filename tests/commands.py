"""Running management commands, here or as a process of their own."""

import io
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection

ROOT = Path(__file__).parents[1]


def run(command: str, *arguments: str, **options: Any) -> str:
    """What it printed."""
    said = io.StringIO()
    call_command(command, *arguments, stdout=said, stderr=said, **options)
    return said.getvalue()


def command_line(command: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "manage.py"), command, *arguments]


def environment() -> dict[str, str]:
    """That of a process that is to work on this test's database."""
    where = connection.settings_dict
    address = f"postgresql://{where['USER']}:{where['PASSWORD']}@{where['HOST']}:{where['PORT']}/{where['NAME']}"
    return os.environ | {"DATABASE_URL": address}
