"""Make rows older than they are, so that tests need no fake clock."""

from datetime import timedelta

from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from service_registry.models import Change, Instance, Lease, RegistryState, Service


def age_leases(seconds: float, **which: str) -> None:
    """Move the last heartbeats of the instances that match into the past. The observation window covers the time."""
    set_window_age(seconds)
    Lease.objects.filter(instance__in=Instance.objects.filter(**which)).update(
        heartbeat_at=F("heartbeat_at") - timedelta(seconds=seconds)
    )


def set_window_age(seconds: float) -> None:
    """Let the observation window have started `seconds` ago, and a web process have pulsed just now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE service_registry_registrystate SET observed_at = clock_timestamp(), "
            "window_started_at = clock_timestamp() - make_interval(secs => %s)",
            [seconds],
        )


def interrupt_observation(seconds: float) -> None:
    """Let no web process have pulsed for `seconds`."""
    RegistryState.objects.update(observed_at=F("observed_at") - timedelta(seconds=seconds))


def set_protection_age(seconds: float) -> None:
    """Let every protection have begun `seconds` ago."""
    Lease.objects.filter(protected_at__isnull=False).update(protected_at=Now() - timedelta(seconds=seconds))


def set_clock_back(seconds: float) -> None:
    """Date all that was written so far into the future, as if the database's clock had been set back since."""
    later = timedelta(seconds=seconds)
    Lease.objects.update(heartbeat_at=F("heartbeat_at") + later, protected_at=F("protected_at") + later)
    RegistryState.objects.update(
        observed_at=F("observed_at") + later,
        window_started_at=F("window_started_at") + later,
        swept_at=F("swept_at") + later,
    )


def age_expiries(seconds: float) -> None:
    """Move all expiries into the past."""
    Lease.objects.filter(expired_at__isnull=False).update(expired_at=F("expired_at") - timedelta(seconds=seconds))


def age_suspension(seconds: float) -> None:
    """Move the current suspension into the past, with all heartbeats and the window before it."""
    earlier = timedelta(seconds=seconds)
    Lease.objects.update(heartbeat_at=F("heartbeat_at") - earlier)
    RegistryState.objects.update(
        window_started_at=F("window_started_at") - earlier,
        suspended_at=F("suspended_at") - earlier,
        suspended_until=F("suspended_until") - earlier,
        suspension_budget_full_at=F("suspension_budget_full_at") - earlier,
    )


def age_changes(seconds: float) -> None:
    """Move all changes so far into the past."""
    Change.objects.update(at=F("at") - timedelta(seconds=seconds))


def age_services(days: float, **which: str) -> None:
    """Move the creation of the services that match, and all changes, into the past."""
    earlier = timedelta(days=days)
    Service.objects.filter(**which).update(created_at=F("created_at") - earlier)
    Change.objects.update(at=F("at") - earlier)
