"""The settings of `make run`: with `dev_token` and a generated secret key."""

from django.core.exceptions import ImproperlyConfigured

from registry_project.devstack.secret_files import read_or_create
from registry_project.settings import *  # noqa: F403
from registry_project.settings import DEBUG, INSTALLED_APPS, REGISTRY_DATA_DIR, SECRET_KEY

INSTALLED_APPS = [*INSTALLED_APPS, "registry_project.devstack"]

if DEBUG and not SECRET_KEY:
    try:
        SECRET_KEY = read_or_create(REGISTRY_DATA_DIR / "secret_key")
    except OSError as error:
        raise ImproperlyConfigured(
            f"REGISTRY_DATA_DIR cannot store a secret key, and SECRET_KEY is not set: {error.strerror}."
        ) from error
