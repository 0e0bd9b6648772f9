"""Run management commands, in this process or as a subprocess."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection

from tests.waiting import wait_for

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


def interrupt(process: subprocess.Popen[str]) -> None:
    """Send SIGINT and wait until it is delivered.

    Python then runs its handler before the next step of the program.
    """
    process.send_signal(signal.SIGINT)
    wait_for(lambda: not has_pending_signal(process.pid, signal.SIGINT))


def has_pending_signal(pid: int, number: int) -> bool:
    """Return whether a signal of the process is pending (proc_pid_status(5))."""
    masks = re.findall(r"^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
