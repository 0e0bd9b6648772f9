#!/usr/bin/env python
"""Django's command line for the registry."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from registry_project.devstack import environment_file

READER_LEFT = 141  # what a shell reports of a command that SIGPIPE has ended


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
    environment_file.adopt()
    try:
        try:
            execute_from_command_line(sys.argv)
        finally:
            sys.stdout.flush()
    except ImproperlyConfigured as error:
        sys.exit(f"The registry cannot start: {error}")
    except OperationalError as error:
        said = " ".join(str(error).split())
        sys.exit(f"The database that DATABASE_URL names does not do its part: {said}")
    except BrokenPipeError:
        # Who read what we print has left, as `head` does. Python would say so at its end, when it flushes again:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_LEFT)


if __name__ == "__main__":
    main()
