"""The limits that operators have set."""

from django.conf import settings

from service_registry.expiry.rules import Limits


def limits() -> Limits:
    return Limits(
        silence_max_seconds=settings.REGISTRY_SILENCE_MAX_SECONDS,
        fleet_fraction=settings.REGISTRY_PROTECTION_FRACTION,
        fleet_minimum=settings.REGISTRY_PROTECTION_MINIMUM,
        fleet_seconds=settings.REGISTRY_PROTECTION_MAX_SECONDS,
        service_fraction=settings.REGISTRY_SERVICE_PROTECTION_FRACTION,
        service_seconds=settings.REGISTRY_SERVICE_PROTECTION_MAX_SECONDS,
    )
