#!/usr/bin/env python
"""Run Django's management commands for the registry."""

import errno
import io
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import Error

from registry_project import env
from service_registry.database import outages

ENDED_BY_SIGPIPE = 141  # the exit status that a shell reports of a command that SIGPIPE has ended
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main() -> None:
    """Run a command. An error that an operator can fix ends it with a sentence and exit code 1, not a traceback."""
    prepare_streams()
    try:
        run_command()
    except BrokenPipeError:
        # The reader of our output has exited, as `head` does.
        discard_output()
        sys.exit(ENDED_BY_SIGPIPE)
    except (ImproperlyConfigured, ModuleNotFoundError, Error, OSError) as error:
        sentence = describe_failure(error)
        if sentence is None:
            raise
        sys.exit(sentence)


def prepare_streams() -> None:
    """Make sure that the command can write what it does, before it does anything.

    A name that the encoding of the locale lacks would fail the command after its change. The first file or socket that
    a process opens takes the place of a stream that is closed.
    """
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - stays open
    if sys.stdout is None or sys.stderr is None:
        sys.exit("Standard output and standard error must not be closed; nothing was done.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def run_command() -> None:
    env.load_environment_file()
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        os.environ["DJANGO_SETTINGS_MODULE"] = "registry_project.settings"
    try:
        execute_from_command_line(sys.argv)
    finally:
        sys.stdout.flush()


def describe_failure(error: Exception) -> str | None:
    """Return a sentence on the error that an operator has to fix, None for a defect."""
    match error:
        case ImproperlyConfigured():
            return f"The registry cannot start: {error}"
        case ModuleNotFoundError() if error.name == os.environ["DJANGO_SETTINGS_MODULE"]:
            return f"The registry cannot start: there is no module {error.name}, which DJANGO_SETTINGS_MODULE names."
        case OSError() if error.errno in DISK_FULL:
            discard_output()
            return f"The output cannot be written: {error.strerror}."
        case Error() if outages.is_outage(error):
            advice = " Run manage.py migrate." if outages.sqlstate_of(error) in outages.NOT_MIGRATED else ""
            return f"The database of DATABASE_URL cannot be used: {' '.join(str(error).split())}{advice}"
    return None


def discard_output() -> None:
    """Give up what is left to write.

    Python would report the error again when it flushes at exit:
    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
