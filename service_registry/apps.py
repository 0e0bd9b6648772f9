"""The Django application, the initial rows of every migrated database, and the end of sessions."""

from datetime import timedelta
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate
from django.http import HttpRequest


class ServiceRegistryConfig(AppConfig):
    name = "service_registry"
    verbose_name = "Service Registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from service_registry import checks  # noqa: F401, PLC0415 - registers the system checks

        post_migrate.connect(create_initial_rows, sender=self)
        user_logged_in.connect(limit_session)


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


def limit_session(request: HttpRequest, **_kwargs: Any) -> None:
    """End the session of a finished login at a fixed time, whatever is saved in it until then.

    Django sends this signal after every login, by provider or password. A number of seconds would count from each save.
    """
    request.session.set_expiry(timedelta(seconds=settings.REGISTRY_ADMIN_SESSION_SECONDS))
