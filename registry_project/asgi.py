"""The ASGI application that production serves."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django.setup(set_prefix=False)

from service_registry.asgi.app import Application  # noqa: E402 - it imports the models
from service_registry.checks import require_valid_settings  # noqa: E402

require_valid_settings()
application = Application()
