"""Stored keys: a process can start while the issuer is down."""

import socket
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F, QuerySet

from service_registry.access_models import SigningKeys
from service_registry.identity.exceptions import KeysUnavailable
from service_registry.identity.key_set import KeySet
from tests.identity.conftest import MakeProvider
from tests.identity.issuer_server import Issuer, jwk
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def down(issuer: Issuer) -> None:
    issuer.answers.clear()


def stored(issuer: Issuer) -> QuerySet[SigningKeys]:
    """Return the stored keys of this issuer; another provider may store its own."""
    return SigningKeys.objects.filter(issuer=issuer.url)


def store(issuer: Issuer, document: object) -> None:
    SigningKeys.objects.create(issuer=issuer.url, document=document)


def test_start_while_the_issuer_is_down_uses_the_stored_keys(issuer: Issuer, make_provider: MakeProvider) -> None:
    make_provider(issuer, stored=True).current()
    wait_for(stored(issuer).exists)
    down(issuer)
    again = make_provider(issuer, stored=True)
    assert again.current().kids == {"rsa"}
    assert again.ready


def test_stored_keys_are_replaced_after_a_fetch(issuer: Issuer, make_provider: MakeProvider) -> None:
    store(issuer, KeySet.from_document({"keys": [jwk("ec", None)]}).document)
    stored(issuer).update(fetched_at=F("fetched_at") - timedelta(seconds=50))
    before = stored(issuer).get()
    provider = make_provider(issuer, stored=True)
    wait_for(lambda: stored(issuer).get().document != before.document)
    assert stored(issuer).get().fetched_at > before.fetched_at + timedelta(seconds=49)
    assert provider.current().kids == {"rsa"}


def test_age_of_stored_keys_is_measured_by_the_database(issuer: Issuer, make_provider: MakeProvider) -> None:
    store(issuer, KeySet.from_document(issuer.jwks).document)
    stored(issuer).update(fetched_at=F("fetched_at") - timedelta(seconds=50))
    down(issuer)
    provider = make_provider(issuer, stored=True)
    provider.current()
    assert provider.age_seconds is not None
    assert 50 <= provider.age_seconds < 55


def test_stored_keys_past_their_maximum_age_are_not_used(issuer: Issuer, make_provider: MakeProvider) -> None:
    store(issuer, KeySet.from_document(issuer.jwks).document)
    stored(issuer).update(fetched_at=F("fetched_at") - timedelta(seconds=101))
    down(issuer)
    with pytest.raises(KeysUnavailable):
        make_provider(issuer, stored=True).current()


@pytest.mark.parametrize("document", [[], {"keys": []}, {"keys": [jwk("rsa", "RS256", d="AQAB")]}])
def test_stored_document_without_usable_keys_is_not_used(
    issuer: Issuer, make_provider: MakeProvider, document: object
) -> None:
    store(issuer, document)
    down(issuer)
    with pytest.raises(KeysUnavailable):
        make_provider(issuer, stored=True, wait_seconds=0.3).current()


def test_stored_keys_of_another_issuer_are_not_used(issuer: Issuer, make_provider: MakeProvider) -> None:
    store(issuer, KeySet.from_document(issuer.jwks).document)
    stored(issuer).update(issuer=issuer.url + "/other")
    down(issuer)
    with pytest.raises(KeysUnavailable):
        make_provider(issuer, stored=True, wait_seconds=0.3).current()


def test_database_that_does_not_answer_blocks_no_call(issuer: Issuer, make_provider: MakeProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        kept = dict(connection.settings_dict)
        connection.settings_dict.update(HOST="127.0.0.1", PORT=mute.getsockname()[1])
        try:
            assert make_provider(issuer, stored=True).current().kids == {"rsa"}
        finally:
            connection.settings_dict.clear()
            connection.settings_dict.update(kept)
