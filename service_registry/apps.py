"""The Django application, and the initial rows of every migrated database."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ServiceRegistryConfig(AppConfig):
    name = "service_registry"
    verbose_name = "Service Registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from service_registry import checks  # noqa: F401, PLC0415 - registers the system checks

        post_migrate.connect(create_initial_rows, sender=self)


def create_initial_rows(using: str, **_kwargs: Any) -> None:
    """Create the role groups, the state row and the first change, where missing.

    A migration could not: the permissions of a new database are created after all migrations, and a flush empties these
    tables. Django sends this signal after both.
    """
    # The models are not loaded yet when this file is imported.
    from service_registry import changelog, permissions  # noqa: PLC0415
    from service_registry.expiry import observation_window  # noqa: PLC0415

    permissions.provide_role_groups(using)
    observation_window.create_state(using)
    changelog.start_log(using)
