"""The application, and what every migrated database holds from the start."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ServiceRegistryConfig(AppConfig):
    name = "service_registry"
    verbose_name = "Service Registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(provide_what_every_database_holds, sender=self)


def provide_what_every_database_holds(using: str, **_kwargs: Any) -> None:
    """Make the role groups, the state row and the log's first row where they are missing, and touch none that exist.

    Permissions do not exist yet while migrations of a new database run, and a flush empties these tables; after either
    this signal is sent.
    """
    from service_registry import changes, permissions  # noqa: PLC0415 (models are not loaded when this file is)
    from service_registry.expiry import hearing  # noqa: PLC0415

    permissions.provide_role_groups(using)
    hearing.provide_state(using)
    changes.start_log(using)
