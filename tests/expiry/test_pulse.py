"""The pulse: only a web process that can accept heartbeats records one."""

import threading
from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group

from service_registry import pulse
from service_registry.access_rules import access_rules
from service_registry.identity.key_provider import get_key_provider
from service_registry.models import RegistryState
from tests import ageing
from tests.identity.issuer_server import Handler, Issuer
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)  # a pulse closes old connections


@pytest.fixture
def issuer(settings: LazySettings) -> Iterator[Issuer]:
    """Run the configured issuer. Its keys have not been fetched yet."""
    with Issuer() as issuer:
        threading.Thread(target=issuer.serve_forever, args=[0.02], daemon=True).start()
        settings.OIDC_ISSUER = issuer.url
        yield issuer
        get_key_provider().stop()
        issuer.shutdown()


def answer_500(handler: Handler) -> None:
    handler.send_error(500)


def pulse_is_recorded() -> bool:
    ageing.interrupt_observation(2)
    before = RegistryState.objects.get().observed_at
    pulse.pulse()
    return RegistryState.objects.get().observed_at > before


def test_process_without_keys_does_not_pulse(issuer: Issuer) -> None:
    issuer.answers["/realm/jwks"] = answer_500
    assert not pulse_is_recorded()
    issuer.answers["/realm/jwks"] = lambda handler: handler.send(b"")
    assert not pulse_is_recorded()


def test_process_with_too_old_keys_does_not_pulse(issuer: Issuer) -> None:
    assert pulse_is_recorded()
    get_key_provider().max_age_seconds = 0
    assert not pulse_is_recorded()


def test_unexpected_error_does_not_end_the_pulse(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    before, get_key_provider().max_age_seconds = get_key_provider().max_age_seconds, "no number"  # type: ignore[assignment]
    assert not pulse_is_recorded()
    assert "The pulse failed." in caplog.messages
    get_key_provider().max_age_seconds = before
    assert pulse_is_recorded()


def test_failed_key_refresh_does_not_stop_the_pulse(issuer: Issuer) -> None:
    assert pulse_is_recorded()
    issuer.answers["/realm/jwks"] = answer_500
    fetches = issuer.fetches
    get_key_provider().refresh_for_unknown_key()
    wait_for(lambda: issuer.fetches > fetches)
    assert pulse_is_recorded()


def test_process_without_grants_does_not_pulse() -> None:
    assert pulse_is_recorded()
    Group.objects.all().delete()
    access_rules.invalidate()
    assert not pulse_is_recorded()
