"""ID tokens that a careless login would take."""

from typing import Any

import pytest

from service_registry.identity.errors import TokenInvalid
from service_registry.identity.id_tokens import login_claims
from service_registry.identity.keys import KeyProvider
from service_registry.identity.signatures import Trust
from tests.identity.conftest import MakeProvider
from tests.identity.issuing import AUDIENCE, In, Issuer, private_key, signed

CLIENT = "the-admin"


@pytest.fixture
def keys(issuer: Issuer, provider_of: MakeProvider) -> KeyProvider:
    return provider_of(issuer)


def id_token(issuer: Issuer, *, key: str = "rsa", header_typ: str = "JWT", **changed: Any) -> str:
    claims = issuer.claims(**{"aud": CLIENT, "nonce": "the nonce", **changed})
    return signed({"alg": "RS256", "kid": "rsa", "typ": header_typ}, claims, private_key(key))


def judged(issuer: Issuer, keys: KeyProvider, token: Any, nonce: str | None = "the nonce") -> dict[str, Any]:
    return login_claims(token, nonce, Trust(issuer.url, CLIENT, ["RS256"], 30), keys)


@pytest.mark.parametrize(
    "changed", [{}, {"azp": CLIENT}, {"aud": [CLIENT]}, {"aud": [CLIENT, "other"], "azp": CLIENT}, {"typ": "ID"}]
)
def test_it_takes_the_token_of_this_login(issuer: Issuer, keys: KeyProvider, changed: dict[str, Any]) -> None:
    assert judged(issuer, keys, id_token(issuer, **changed))["sub"] == "billing"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"aud": AUDIENCE}, "another audience"),
        ({"aud": None}, "claim is missing"),
        ({"iss": "https://other.example"}, "another issuer"),
        ({"exp": In(-60), "iat": In(-90)}, "expired"),
        ({"iat": In(600)}, "not valid yet"),
        ({"azp": "another-client"}, "another client"),
        ({"aud": [CLIENT, "other"]}, "another client"),
        ({"nonce": None}, "not of this login"),
        ({"nonce": "another"}, "not of this login"),
        ({"nonce": ["the nonce"]}, "not of this login"),
        ({"nonce": "\ud800"}, "not of this login"),
        ({"sub": ""}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"typ": "Bearer"}, "no ID token"),
        ({"typ": "Logout"}, "no ID token"),
    ],
)
def test_it_refuses_claims(issuer: Issuer, keys: KeyProvider, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        judged(issuer, keys, id_token(issuer, **changed))


def test_it_refuses_a_forged_signature(issuer: Issuer, keys: KeyProvider) -> None:
    with pytest.raises(TokenInvalid, match="signature"):
        judged(issuer, keys, id_token(issuer, key="rsa-other"))


def test_it_refuses_an_access_token_by_its_header(issuer: Issuer, keys: KeyProvider) -> None:
    with pytest.raises(TokenInvalid, match="no ID token"):
        judged(issuer, keys, id_token(issuer, header_typ="at+jwt"))


@pytest.mark.parametrize("token", [None, 7, {}, "", "nonsense"])
def test_it_refuses_what_is_no_token(issuer: Issuer, keys: KeyProvider, token: Any) -> None:
    with pytest.raises(TokenInvalid):
        judged(issuer, keys, token)


@pytest.mark.parametrize("nonce", [None, ""])
def test_a_login_without_a_nonce_is_none(issuer: Issuer, keys: KeyProvider, nonce: str | None) -> None:
    with pytest.raises(TokenInvalid, match="nonce"):
        judged(issuer, keys, id_token(issuer, nonce=""), nonce)
