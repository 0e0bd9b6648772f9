"""Keys that outlive a restart while the issuer is down."""

import socket
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F, QuerySet

from service_registry.identity.errors import KeysUnavailable
from service_registry.identity.key_set import KeySet
from service_registry.models import SigningKeys
from tests.identity.conftest import MakeProvider
from tests.identity.issuing import Issuer, jwk, until

pytestmark = pytest.mark.django_db(transaction=True)


def down(issuer: Issuer) -> None:
    issuer.answers.clear()


def stored(issuer: Issuer) -> QuerySet[SigningKeys]:
    """What is kept of this issuer; the process's own provider may keep another's at any moment."""
    return SigningKeys.objects.filter(issuer=issuer.url)


def store(issuer: Issuer, document: object) -> None:
    SigningKeys.objects.create(issuer=issuer.url, document=document)


def test_a_start_with_the_issuer_down_uses_the_stored_keys(issuer: Issuer, provider_of: MakeProvider) -> None:
    provider_of(issuer, stored=True).current()
    until(stored(issuer).exists)
    down(issuer)
    again = provider_of(issuer, stored=True)
    assert again.current().kids == {"rsa"}
    assert again.ready


def test_what_is_stored_is_renewed(issuer: Issuer, provider_of: MakeProvider) -> None:
    store(issuer, KeySet.of({"keys": [jwk("ec", None)]}).document)
    stored(issuer).update(fetched_at=F("fetched_at") - timedelta(seconds=50))
    before = stored(issuer).get()
    provider = provider_of(issuer, stored=True)
    until(lambda: stored(issuer).get().document != before.document)
    assert stored(issuer).get().fetched_at > before.fetched_at + timedelta(seconds=49)
    assert provider.current().kids == {"rsa"}


def test_stored_keys_are_as_old_as_the_database_says(issuer: Issuer, provider_of: MakeProvider) -> None:
    store(issuer, KeySet.of(issuer.jwks).document)
    stored(issuer).update(fetched_at=F("fetched_at") - timedelta(seconds=50))
    down(issuer)
    provider = provider_of(issuer, stored=True)
    provider.current()
    assert provider.age_seconds is not None
    assert 50 <= provider.age_seconds < 55


def test_stored_keys_grow_too_old(issuer: Issuer, provider_of: MakeProvider) -> None:
    store(issuer, KeySet.of(issuer.jwks).document)
    stored(issuer).update(fetched_at=F("fetched_at") - timedelta(seconds=101))
    down(issuer)
    with pytest.raises(KeysUnavailable):
        provider_of(issuer, stored=True).current()


@pytest.mark.parametrize("document", [[], {"keys": []}, {"keys": [jwk("rsa", "RS256", d="AQAB")]}])
def test_a_stored_document_is_judged_like_any_other(
    issuer: Issuer, provider_of: MakeProvider, document: object
) -> None:
    store(issuer, document)
    down(issuer)
    with pytest.raises(KeysUnavailable):
        provider_of(issuer, stored=True, wait_seconds=0.3).current()


def test_another_issuers_keys_are_not_used(issuer: Issuer, provider_of: MakeProvider) -> None:
    store(issuer, KeySet.of(issuer.jwks).document)
    stored(issuer).update(issuer=issuer.url + "/other")
    down(issuer)
    with pytest.raises(KeysUnavailable):
        provider_of(issuer, stored=True, wait_seconds=0.3).current()


def test_a_database_that_is_gone_fails_no_request(issuer: Issuer, provider_of: MakeProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        kept = dict(connection.settings_dict)
        connection.settings_dict.update(HOST="127.0.0.1", PORT=mute.getsockname()[1])
        try:
            assert provider_of(issuer, stored=True).current().kids == {"rsa"}
        finally:
            connection.settings_dict.clear()
            connection.settings_dict.update(kept)
