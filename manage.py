#!/usr/bin/env python
"""Django's command line for the registry."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from registry_project.embedded import environment_file


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
    environment_file.adopt()
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"The registry cannot start: {error}")
    except OperationalError as error:
        said = " ".join(str(error).split())
        sys.exit(f"The database that DATABASE_URL names does not do its part: {said}")


if __name__ == "__main__":
    main()
