"""What is beside the database: the settings, the provider's keys and the broker."""

from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from django.conf import settings
from django.core import checks
from kombu.exceptions import OperationalError

from service_registry.identity.fetching import FetchFailed, discover, endpoint, fetch_json
from service_registry.identity.key_set import KeySet, KeySetUnusable
from service_registry.management.doctor.finding import Finding, fail, ok, warn

BROKER_SECONDS = 3


def configured() -> Finding:
    """Django's own checks; those for production while DEBUG is off."""
    found = checks.run_checks(include_deployment_checks=not settings.DEBUG)
    serious = [message for message in found if message.is_serious() and not message.is_silenced()]
    if serious:
        return fail(serious[0].msg, f"{serious[0].hint or 'see manage.py check'}")
    others = [message for message in found if message.level >= checks.WARNING and not message.is_silenced()]
    if others:
        return warn(others[0].msg, f"{others[0].hint or 'see manage.py check --deploy'}")
    if settings.DEBUG:
        return ok("as for development: DEBUG is on")
    return ok("as for production")


def keys() -> Finding:
    """Whether this machine gets the provider's keys now. Those that are stored are a check of their own."""
    try:
        found = KeySet.of(published())
    except (FetchFailed, KeySetUnusable) as error:
        return warn(
            f"{settings.OIDC_ISSUER} gave no keys: {error}",
            "see that OIDC_ISSUER is its exact address and can be reached from here; stored keys serve meanwhile",
        )
    refused = {algorithm for _kid, algorithm in found.keys} - set(settings.OIDC_ALGORITHMS)
    if len(refused) == len({algorithm for _kid, algorithm in found.keys}):
        return fail(f"{settings.OIDC_ISSUER} signs by {', '.join(sorted(refused))} alone", "set OIDC_ALGORITHMS")
    return ok(f"{len(found.keys)} from {settings.OIDC_ISSUER}")


def published() -> Any:
    """Raises FetchFailed."""
    return fetch_json(settings.OIDC_JWKS_URI or endpoint(discover(settings.OIDC_ISSUER), "jwks_uri"))


def broker() -> Finding:
    parts = urlsplit(settings.CELERY_BROKER_URL)
    if parts.scheme == "memory":
        return ok("in memory: worker and beat are one process")
    where = f"{parts.scheme}://{parts.hostname}"
    waiting = {"socket_connect_timeout": BROKER_SECONDS, "socket_timeout": BROKER_SECONDS}
    app = Celery(broker=settings.CELERY_BROKER_URL, set_as_current=False)
    app.conf.broker_connection_timeout, app.conf.broker_transport_options = BROKER_SECONDS, waiting
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS)
    except OperationalError:
        return warn(f"{where} does not answer", "start it or mend CELERY_BROKER_URL; web processes sweep meanwhile")
    return ok(f"{where} answers")
