#!/usr/bin/env python
"""Run Django's management commands for the registry."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from registry_project import env

ENDED_BY_SIGPIPE = 141  # the exit status that a shell reports of a command that SIGPIPE has ended


def main() -> None:
    try:
        env.load_environment_file()
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
        try:
            execute_from_command_line(sys.argv)
        finally:
            sys.stdout.flush()
    except ImproperlyConfigured as error:
        sys.exit(f"The registry cannot start: {error}")
    except OperationalError as error:
        reason = " ".join(str(error).split())
        sys.exit(f"The database of DATABASE_URL cannot be used: {reason}")
    except BrokenPipeError:
        # The reader of our output has exited, as `head` does. Python would report that when it flushes again at exit:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ENDED_BY_SIGPIPE)


if __name__ == "__main__":
    main()
