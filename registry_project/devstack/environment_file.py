"""Write the environment file: `manage.py` in a second shell reads it."""

import os

from registry_project import env

SHARED = (
    "DJANGO_SETTINGS_MODULE",
    "DATABASE_URL",
    "DEBUG",
    "OIDC_ISSUER",
    "OIDC_AUDIENCE",
    "OIDC_RP_CLIENT_SECRET",
    "CELERY_BROKER_URL",
    "REGISTRY_PORT",
    "PROMETHEUS_MULTIPROC_DIR",
)


def write() -> None:
    """Replace the file with the variables of SHARED that are set.

    Only its owner can read it, since it contains the password of the database.
    """
    path = env.default_environment_file()
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={os.environ[name]}\n" for name in SHARED if os.environ.get(name))
    temporary.replace(path)


def remove() -> None:
    env.default_environment_file().unlink(missing_ok=True)
