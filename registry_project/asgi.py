"""The ASGI application that production serves, and the class of its connections for uvicorn's `--http`."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django.setup(set_prefix=False)

from service_registry.asgi.app import Application  # noqa: E402 - it imports the models
from service_registry.asgi.server.connection import Connection  # noqa: E402
from service_registry.checks import require_valid_settings  # noqa: E402

__all__ = ["Connection", "application"]

require_valid_settings()
application = Application()
