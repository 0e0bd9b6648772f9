"""Callers by their Authorization header: what is remembered, and until when."""

import time
from dataclasses import replace

import pytest
from django.conf import settings
from django.contrib.auth.models import Group

from service_registry.access_rules import access_rules
from service_registry.exceptions import ClockIsWrong
from service_registry.expiry import observation_window
from service_registry.http.authentication import authenticate, authenticate_at_once, renew_generation
from service_registry.http.callers import ENTRY_BYTES, GROUP_BYTES, JUDGED_SECONDS, CallerCache
from service_registry.identity.exceptions import TokenInvalid
from tests.client import token
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


def header(*groups: str, subject: str = "someone", ttl_seconds: int = 600) -> bytes:
    return f"Bearer {token(*groups, subject=subject, ttl_seconds=ttl_seconds)}".encode()


def test_known_header_gives_the_same_identity() -> None:
    sent = header("registry-readers")
    first = authenticate(sent)
    assert authenticate(sent) is first
    assert authenticate_at_once(sent) is first


def test_headers_in_other_forms_share_one_entry() -> None:
    """A caller could fill the cache with one token otherwise."""
    sent = header("registry-readers")
    first = authenticate(sent)
    assert authenticate(sent.replace(b"Bearer ", b"bEARER   ")) is first


def test_event_loop_without_rules_has_to_wait() -> None:
    sent = header("registry-readers")
    assert authenticate_at_once(sent) is None
    assert authenticate(sent) is authenticate_at_once(sent)


def test_changed_grants_apply_without_another_verification() -> None:
    sent = header("registry-readers")
    first = authenticate(sent)
    assert first.caller.may("view_instance")
    Group.objects.get(name="registry-readers").permissions.clear()
    access_rules.refresh()
    assert renew_generation() is not first.generation
    identity = authenticate_at_once(sent)
    assert identity is not None
    assert identity.caller.granted == frozenset()
    assert identity.principal is first.principal


def test_generation_stays_while_nothing_changes() -> None:
    generation = authenticate(header("registry-readers")).generation
    access_rules.refresh()
    assert renew_generation() is generation


def test_clock_that_is_wrong_ends_the_generation() -> None:
    sent = header("registry-readers")
    authenticate(sent)
    observation_window.process_pulse().clock_is_wrong = True
    try:
        assert renew_generation() is None
        with pytest.raises(ClockIsWrong):
            authenticate_at_once(sent)
    finally:
        observation_window.process_pulse().clock_is_wrong = False


def test_remembered_token_is_refused_once_it_has_expired() -> None:
    """It is accepted until the end of the leeway, as PyJWT does, and remembered as long."""
    sent = header("registry-readers", ttl_seconds=2 - settings.OIDC_LEEWAY_SECONDS)
    first = authenticate(sent)
    assert first.expires_at == first.principal.expires_at + settings.OIDC_LEEWAY_SECONDS
    assert authenticate_at_once(sent) is first
    wait_for(lambda: time.time() >= first.expires_at)
    for call in (authenticate, authenticate_at_once):
        with pytest.raises(TokenInvalid, match="expired"):
            call(sent)


def test_stream_is_judged_again_once_a_minute_and_at_the_end_of_its_token() -> None:
    assert authenticate(header("registry-readers")).seconds_to_judgement == JUDGED_SECONDS == 60
    expiring = authenticate(header("registry-readers", ttl_seconds=50 - settings.OIDC_LEEWAY_SECONDS))
    assert 0 < expiring.seconds_to_judgement <= 50


def test_full_cache_evicts_its_oldest_entries() -> None:
    identities = [authenticate(header("registry-readers", subject=f"s-{number}")) for number in range(3)]
    cache = CallerCache(max_bytes=2 * (ENTRY_BYTES + GROUP_BYTES + 10))
    cache.generation = identities[0].generation
    for number, identity in enumerate(identities):
        cache.put(b"header-%d" % number, identity)
        cache.put(b"header-%d" % number, identity)  # replaced, not counted twice
    assert [cache.find(b"header-%d" % number) for number in range(3)] == [None, *identities[1:]]


def test_entry_of_a_large_token_counts_for_more() -> None:
    small = authenticate(header("registry-readers"))
    large = replace(small, caller=replace(small.caller, groups=frozenset(map(str, range(100)))))
    cache = CallerCache(max_bytes=2 * ENTRY_BYTES + 100 * GROUP_BYTES)
    cache.generation = small.generation
    cache.put(b"small", small)
    cache.put(b"large", large)
    assert (cache.find(b"small"), cache.find(b"large")) == (None, large)
