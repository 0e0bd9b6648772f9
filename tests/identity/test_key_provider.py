"""Key provider: refreshes, failures of the issuer, and the waits of requests."""

import json
import os
import threading
import time
from typing import Any

import pytest

from service_registry.identity import key_provider
from service_registry.identity.exceptions import KeysUnavailable
from service_registry.identity.key_provider import KeyProvider
from tests.identity.conftest import MakeProvider
from tests.identity.issuer_server import Handler, Issuer, jwk
from tests.waiting import wait_for

JWKS = "/realm/jwks"


def key_ids(provider: KeyProvider) -> set[str]:
    return set(provider.current().kids)


def test_first_call_waits_for_the_first_keys(issuer: Issuer, make_provider: MakeProvider) -> None:
    provider = make_provider(issuer)
    assert key_ids(provider) == {"rsa"}
    assert provider.ready
    assert provider.age_seconds is not None
    assert 0 <= provider.age_seconds <= provider.max_age_seconds


def test_second_start_does_nothing(issuer: Issuer, make_provider: MakeProvider) -> None:
    provider = make_provider(issuer).start().start()
    key_ids(provider)
    assert sum(thread.name == "keys" and thread.is_alive() for thread in threading.enumerate()) >= 1
    assert issuer.fetches == 1


def test_configured_jwks_uri_skips_discovery(issuer: Issuer, make_provider: MakeProvider) -> None:
    assert key_ids(make_provider(issuer, jwks_uri=f"{issuer.url}/jwks")) == {"rsa"}
    assert issuer.requested == [JWKS]


def test_new_key_set_replaces_the_old_one(issuer: Issuer, make_provider: MakeProvider) -> None:
    provider = make_provider(issuer, refresh_seconds=0.05)
    assert key_ids(provider) == {"rsa"}
    issuer.jwks = {"keys": [jwk("ec", None)]}
    wait_for(lambda: key_ids(provider) == {"ec"})


def test_unchanged_keys_keep_the_same_key_set(issuer: Issuer, make_provider: MakeProvider) -> None:
    issuer.jwks = {"keys": [jwk("rsa", "RS256"), jwk("ec", None)]}
    provider = make_provider(issuer, refresh_seconds=0.05)
    before = provider.current()
    issuer.jwks = {"keys": [*reversed(issuer.jwks["keys"])]}
    fetches = issuer.fetches
    wait_for(lambda: issuer.fetches > fetches + 1)
    assert provider.current() is before


@pytest.mark.parametrize(
    "bad", [b"<html>", b"", {}, {"keys": []}, {"keys": [jwk("rsa", "RS256", use="enc")]}, b" " * 300_000]
)
def test_bad_answer_of_the_issuer_keeps_the_old_keys(issuer: Issuer, make_provider: MakeProvider, bad: Any) -> None:
    provider = make_provider(issuer, refresh_seconds=0.02)
    before = provider.current()
    issuer.jwks = bad
    fetches = issuer.fetches
    wait_for(lambda: issuer.fetches > fetches + 2)
    assert provider.current() is before


def test_redirect_by_the_issuer_is_not_followed(issuer: Issuer, make_provider: MakeProvider) -> None:
    issuer.answers["/realm/elsewhere"] = issuer.answers[JWKS]
    issuer.answers[JWKS] = lambda handler: handler.send(b"", 302, Location="/realm/elsewhere")
    with pytest.raises(KeysUnavailable):
        make_provider(issuer, wait_seconds=0.3).current()
    assert "/realm/elsewhere" not in issuer.requested


def test_failed_fetch_is_retried_with_exponential_backoff(issuer: Issuer, make_provider: MakeProvider) -> None:
    issuer.answers[JWKS] = lambda handler: handler.send(b"", 500)
    provider = make_provider(issuer, wait_seconds=0.1, last_retry_seconds=0.2)
    assert not provider.ready
    wait_for(lambda: issuer.fetches >= 4)
    issuer.answers[JWKS] = lambda handler: handler.send(b'{"keys": []}')
    pauses = [key_provider.Schedule().pause(failures) for failures in (1, 2, 3, 20)]
    assert 0.5 <= pauses[0] <= 1
    assert 1 <= pauses[1] <= 2
    assert 2 <= pauses[2] <= 4
    assert 30 <= pauses[3] <= 60
    assert 240 <= key_provider.Schedule().pause(0) <= 360


def test_call_without_keys_waits_once_and_raises_keys_unavailable(issuer: Issuer, make_provider: MakeProvider) -> None:
    issuer.answers[JWKS] = issuer.hang
    provider = make_provider(issuer, wait_seconds=0.3)
    waits = []
    for _ in range(3):
        began_at = time.monotonic()
        with pytest.raises(KeysUnavailable) as refused:
            provider.current()
        waits.append(time.monotonic() - began_at)
    assert JWKS not in issuer.answered
    assert max(waits[1:]) < waits[0]
    assert refused.value.retry_after_seconds > 0


def test_keys_past_their_maximum_age_are_unavailable(issuer: Issuer, make_provider: MakeProvider) -> None:
    provider = make_provider(issuer, max_age_seconds=0.3)
    assert key_ids(provider) == {"rsa"}
    wait_for(lambda: not provider.ready)
    with pytest.raises(KeysUnavailable):
        provider.current()


def test_call_with_known_keys_does_not_wait_for_an_issuer_that_hangs(
    issuer: Issuer, make_provider: MakeProvider
) -> None:
    provider = make_provider(issuer, wait_seconds=30)
    provider.current()
    issuer.answers[JWKS] = issuer.hang
    unknown = threading.Thread(target=provider.refresh_for_unknown_key)
    unknown.start()
    wait_for(lambda: issuer.fetches == 2)
    provider.current()
    assert unknown.is_alive()
    unknown.join(60)
    assert not unknown.is_alive()


def test_concurrent_refreshes_for_an_unknown_key_share_one_fetch(issuer: Issuer, make_provider: MakeProvider) -> None:
    provider = make_provider(issuer)
    provider.current()

    def slowly(handler: Handler) -> None:
        time.sleep(0.2)
        handler.send(issuer_jwks)

    issuer.jwks = {"keys": [jwk("rsa", "RS256"), jwk("ec", None)]}
    issuer_jwks = json.dumps(issuer.jwks).encode()
    issuer.answers[JWKS] = slowly
    seen: list[set[str]] = []
    waiting = [
        threading.Thread(target=lambda: seen.append(set(provider.refresh_for_unknown_key().kids))) for _ in range(10)
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert seen == [{"rsa", "ec"}] * 10
    assert issuer.fetches == 2


@pytest.mark.parametrize("status", [200, 500])
def test_refreshes_for_unknown_keys_are_rate_limited(issuer: Issuer, make_provider: MakeProvider, status: int) -> None:
    provider = make_provider(issuer, unknown_key_seconds=0.5, first_retry_seconds=100, last_retry_seconds=100)
    provider.current()
    body = json.dumps(issuer.jwks).encode()
    issuer.answers[JWKS] = lambda handler: handler.send(body, status)
    for _ in range(20):
        provider.refresh_for_unknown_key()
    assert issuer.fetches == 2
    wait_for(lambda: provider.refresh_for_unknown_key() and issuer.fetches == 3)


def test_refresh_does_not_use_an_attempt_that_had_already_started(issuer: Issuer, make_provider: MakeProvider) -> None:
    """A key that is published during an attempt may be missing from its result."""
    provider = make_provider(issuer, refresh_seconds=0.3)
    provider.current()
    old, may_answer = json.dumps(issuer.jwks).encode(), threading.Event()

    def late(handler: Handler) -> None:
        may_answer.wait(1)
        handler.send(old)

    plain = issuer.answers[JWKS]
    issuer.answers[JWKS] = late
    wait_for(lambda: issuer.fetches == 2)
    issuer.answers[JWKS] = plain
    issuer.jwks = {"keys": [jwk("ec", None)]}
    threading.Timer(0.1, may_answer.set).start()
    assert set(provider.refresh_for_unknown_key().kids) == {"ec"}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.django_db(transaction=True)
def test_forked_process_gets_its_own_provider() -> None:
    parents = key_provider.get_key_provider()
    assert key_provider.get_key_provider() is parents
    child = os.fork()
    if not child:
        mine = key_provider.get_key_provider()
        os._exit(7 if mine is not parents and mine is key_provider.get_key_provider() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
