"""Check what is needed besides the database: settings, provider's keys, broker."""

from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from django.conf import settings
from django.core import checks
from kombu.exceptions import OperationalError

from service_registry.identity.issuer_client import FetchFailed, discover, fetch_json, get_endpoint
from service_registry.identity.key_set import KeySet, KeySetUnusable
from service_registry.management.doctor.finding import Finding, fail, ok, warn

BROKER_SECONDS = 3


def check_settings() -> Finding:
    """Run Django's system checks, while DEBUG is off also those for deployment."""
    found = checks.run_checks(include_deployment_checks=not settings.DEBUG)
    serious = [message for message in found if message.is_serious() and not message.is_silenced()]
    if serious:
        return fail(serious[0].msg, f"{serious[0].hint or 'see manage.py check'}")
    others = [message for message in found if message.level >= checks.WARNING and not message.is_silenced()]
    if others:
        return warn(others[0].msg, f"{others[0].hint or 'see manage.py check --deploy'}")
    if settings.DEBUG:
        return ok("for development: DEBUG is on")
    return ok("for production")


def check_keys() -> Finding:
    """Check that this machine can fetch the provider's keys now."""
    try:
        found = KeySet.from_document(fetch_keys())
    except (FetchFailed, KeySetUnusable) as error:
        return warn(
            f"{settings.OIDC_ISSUER} returned no keys: {error}",
            "check that OIDC_ISSUER is its exact address and can be reached from here; stored keys are used meanwhile",
        )
    algorithms = {algorithm for _kid, algorithm in found.keys}
    if algorithms.isdisjoint(settings.OIDC_ALGORITHMS):
        return fail(f"{settings.OIDC_ISSUER} signs only with {', '.join(sorted(algorithms))}", "set OIDC_ALGORITHMS")
    return ok(f"{len(found.keys)} from {settings.OIDC_ISSUER}")


def fetch_keys() -> Any:
    """Raises FetchFailed."""
    return fetch_json(settings.OIDC_JWKS_URI or get_endpoint(discover(settings.OIDC_ISSUER), "jwks_uri"))


def check_broker() -> Finding:
    parts = urlsplit(settings.CELERY_BROKER_URL)
    if parts.scheme == "memory":
        return ok("in memory: worker and beat are one process")
    address = f"{parts.scheme}://{parts.hostname}"
    timeouts = {"socket_connect_timeout": BROKER_SECONDS, "socket_timeout": BROKER_SECONDS}
    app = Celery(broker=settings.CELERY_BROKER_URL, set_as_current=False)
    app.conf.broker_connection_timeout, app.conf.broker_transport_options = BROKER_SECONDS, timeouts
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS)
    except (OperationalError, ValueError):  # ValueError: the port is out of range
        return warn(
            f"{address} does not answer", "start it or correct CELERY_BROKER_URL; web processes sweep meanwhile"
        )
    return ok(f"{address} answers")
