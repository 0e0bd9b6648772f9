"""The pulse of a web process says that it hears, and only one that can take a heartbeat does."""

import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group

from service_registry import pulse
from service_registry.identity.keys import get_key_provider
from service_registry.models import RegistryState
from service_registry.permissions import permission_cache
from tests import ageing
from tests.identity.issuer_server import Handler, Issuer
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)  # a pulse closes old connections


@pytest.fixture
def issuer(settings: LazySettings) -> Iterator[Issuer]:
    """The one that is configured, not yet asked."""
    with Issuer() as issuer:
        threading.Thread(target=issuer.serve_forever, args=[0.02], daemon=True).start()
        settings.OIDC_ISSUER = issuer.url
        yield issuer
        get_key_provider().stop()
        issuer.shutdown()


def fails(handler: Handler) -> None:
    handler.send_error(500)


def observed_at() -> datetime:
    return RegistryState.objects.get().observed_at


def pulse_moves_heard_at() -> bool:
    ageing.interrupt_observation(2)
    before = observed_at()
    pulse.pulse()
    return observed_at() > before


def test_a_process_without_keys_does_not_say_that_it_hears(issuer: Issuer) -> None:
    issuer.answers["/realm/jwks"] = fails
    assert not pulse_moves_heard_at()
    issuer.answers["/realm/jwks"] = lambda handler: handler.send(b"")
    assert not pulse_moves_heard_at()


def test_keys_that_are_too_old_are_none(issuer: Issuer) -> None:
    assert pulse_moves_heard_at()
    get_key_provider().max_age_seconds = 0
    assert not pulse_moves_heard_at()


def test_a_pulse_that_fails_for_no_known_reason_is_not_the_last(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    before, get_key_provider().max_age_seconds = get_key_provider().max_age_seconds, "no number"  # type: ignore[assignment]
    assert not pulse_moves_heard_at()
    assert "The pulse failed." in caplog.messages
    get_key_provider().max_age_seconds = before
    assert pulse_moves_heard_at()


def test_a_refresh_that_fails_stops_no_pulse(issuer: Issuer) -> None:
    assert pulse_moves_heard_at()
    issuer.answers["/realm/jwks"] = fails
    fetches = issuer.fetches
    get_key_provider().refresh_for_unknown_key()
    wait_for(lambda: issuer.fetches > fetches)
    assert pulse_moves_heard_at()


def test_a_process_that_knows_no_grants_does_not_say_that_it_hears() -> None:
    assert pulse_moves_heard_at()
    Group.objects.all().delete()
    permission_cache.invalidate()
    assert not pulse_moves_heard_at()
