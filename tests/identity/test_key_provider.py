"""How keys are kept fresh, and that no request pays for an issuer's trouble."""

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service_registry.identity import keys as keys_module
from service_registry.identity.errors import KeysUnavailable
from service_registry.identity.keys import KeyProvider
from tests.identity.conftest import MakeProvider
from tests.identity.issuing import Handler, Issuer, jwk, until

JWKS = "/realm/jwks"


def names(provider: KeyProvider) -> set[str]:
    return set(provider.current().kids)


def seconds_of(work: Callable[[], Any]) -> float:
    begun_at = time.monotonic()
    work()
    return time.monotonic() - begun_at


def test_the_first_request_waits_for_the_first_keys(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider = provider_of(issuer)
    assert names(provider) == {"rsa"}
    assert provider.ready
    assert provider.age_seconds is not None
    assert provider.age_seconds < 2


def test_a_second_start_starts_nothing(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider = provider_of(issuer).start().start()
    names(provider)
    assert sum(thread.name == "keys" and thread.is_alive() for thread in threading.enumerate()) >= 1
    assert issuer.fetches == 1


def test_keys_may_come_from_an_address_that_is_set(issuer: Issuer, provider_of: MakeProvider) -> None:
    assert names(provider_of(issuer, jwks_uri=f"{issuer.url}/jwks")) == {"rsa"}
    assert issuer.asked == [JWKS]


def test_a_new_set_replaces_the_old_one_whole(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider = provider_of(issuer, refresh_seconds=0.05)
    assert names(provider) == {"rsa"}
    issuer.jwks = {"keys": [jwk("ec", None)]}
    until(lambda: names(provider) == {"ec"})


def test_the_same_keys_again_are_the_same_set(issuer: Issuer, provider_of: MakeProvider) -> None:
    issuer.jwks = {"keys": [jwk("rsa", "RS256"), jwk("ec", None)]}
    provider = provider_of(issuer, refresh_seconds=0.05)
    before = provider.current()
    issuer.jwks = {"keys": [*reversed(issuer.jwks["keys"])]}
    fetches = issuer.fetches
    until(lambda: issuer.fetches > fetches + 1)
    assert provider.current() is before


@pytest.mark.parametrize(
    "bad", [b"<html>", b"", {}, {"keys": []}, {"keys": [jwk("rsa", "RS256", use="enc")]}, b" " * 300_000]
)
def test_a_bad_answer_keeps_the_old_keys(issuer: Issuer, provider_of: MakeProvider, bad: Any) -> None:
    provider = provider_of(issuer, refresh_seconds=0.02)
    before = provider.current()
    issuer.jwks = bad
    fetches = issuer.fetches
    until(lambda: issuer.fetches > fetches + 2)
    assert provider.current() is before


def test_a_redirect_is_no_answer(issuer: Issuer, provider_of: MakeProvider) -> None:
    issuer.answers["/realm/elsewhere"] = issuer.answers[JWKS]
    issuer.answers[JWKS] = lambda handler: handler.send(b"", 302, Location="/realm/elsewhere")
    with pytest.raises(KeysUnavailable):
        provider_of(issuer, wait_seconds=0.3).current()
    assert "/realm/elsewhere" not in issuer.asked


def test_failures_are_retried_soon_and_then_less_often(issuer: Issuer, provider_of: MakeProvider) -> None:
    issuer.answers[JWKS] = lambda handler: handler.send(b"", 500)
    provider = provider_of(issuer, wait_seconds=0.1, last_retry_seconds=0.2)
    assert not provider.ready
    until(lambda: issuer.fetches >= 4)
    issuer.answers[JWKS] = lambda handler: handler.send(b'{"keys": []}')
    pauses = [keys_module.Pace().pause(failures) for failures in (1, 2, 3, 20)]
    assert 0.5 <= pauses[0] <= 1
    assert 1 <= pauses[1] <= 2
    assert 2 <= pauses[2] <= 4
    assert 30 <= pauses[3] <= 60
    assert 240 <= keys_module.Pace().pause(0) <= 360


def test_nothing_is_judged_without_keys_and_nobody_waits_long(issuer: Issuer, provider_of: MakeProvider) -> None:
    issuer.answers[JWKS] = issuer.hang
    provider = provider_of(issuer, wait_seconds=0.3)
    for most in (0.5, 0.1, 0.1):
        begun_at = time.monotonic()
        with pytest.raises(KeysUnavailable) as refused:
            provider.current()
        assert time.monotonic() - begun_at < most
    assert refused.value.retry_after_seconds > 0


def test_keys_grow_too_old(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider = provider_of(issuer, max_age_seconds=0.3)
    assert names(provider) == {"rsa"}
    until(lambda: not provider.ready)
    with pytest.raises(KeysUnavailable):
        provider.current()


def test_a_hanging_issuer_holds_no_request_that_knows_its_key(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider = provider_of(issuer, wait_seconds=0.5)
    provider.current()
    issuer.answers[JWKS] = issuer.hang
    unknown = threading.Thread(target=provider.asked_again)
    unknown.start()
    until(lambda: issuer.fetches == 2)
    assert seconds_of(provider.current) < 0.05
    assert unknown.is_alive()
    unknown.join(1)
    assert not unknown.is_alive()


def test_an_unknown_key_brings_one_fetch_that_all_join(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider = provider_of(issuer)
    provider.current()

    def slowly(handler: Handler) -> None:
        time.sleep(0.2)
        handler.send(issuer_jwks)

    issuer.jwks = {"keys": [jwk("rsa", "RS256"), jwk("ec", None)]}
    issuer_jwks = json.dumps(issuer.jwks).encode()
    issuer.answers[JWKS] = slowly
    seen: list[set[str]] = []
    waiting = [threading.Thread(target=lambda: seen.append(set(provider.asked_again().kids))) for _ in range(10)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert seen == [{"rsa", "ec"}] * 10
    assert issuer.fetches == 2


@pytest.mark.parametrize("status", [200, 500])
def test_unknown_keys_are_asked_for_once_in_a_while(issuer: Issuer, provider_of: MakeProvider, status: int) -> None:
    provider = provider_of(issuer, unknown_key_seconds=0.5, first_retry_seconds=100, last_retry_seconds=100)
    provider.current()
    body = json.dumps(issuer.jwks).encode()
    issuer.answers[JWKS] = lambda handler: handler.send(body, status)
    for _ in range(20):
        provider.asked_again()
    assert issuer.fetches == 2
    time.sleep(0.5)
    provider.asked_again()
    assert issuer.fetches == 3


def test_an_attempt_that_had_begun_is_not_the_answer(issuer: Issuer, provider_of: MakeProvider) -> None:
    """A key published while an attempt is on its way may be missing from what that attempt brings."""
    provider = provider_of(issuer, refresh_seconds=0.3)
    provider.current()
    old, may_answer = json.dumps(issuer.jwks).encode(), threading.Event()

    def late(handler: Handler) -> None:
        may_answer.wait(1)
        handler.send(old)

    plain = issuer.answers[JWKS]
    issuer.answers[JWKS] = late
    until(lambda: issuer.fetches == 2)
    issuer.answers[JWKS] = plain
    issuer.jwks = {"keys": [jwk("ec", None)]}
    threading.Timer(0.1, may_answer.set).start()
    assert set(provider.asked_again().kids) == {"ec"}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.django_db(transaction=True)
def test_a_forked_process_has_a_provider_of_its_own() -> None:
    parents = keys_module.provider()
    assert keys_module.provider() is parents
    child = os.fork()
    if not child:
        mine = keys_module.provider()
        os._exit(7 if mine is not parents and mine is keys_module.provider() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
