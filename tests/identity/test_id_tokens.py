"""ID tokens: which are accepted, and why others are refused."""

from typing import Any

import pytest

from service_registry.identity.exceptions import TokenInvalid
from service_registry.identity.id_tokens import verify_id_token
from service_registry.identity.key_provider import KeyProvider
from service_registry.identity.signatures import TrustedIssuer
from tests.identity.conftest import MakeProvider
from tests.identity.issuer_server import AUDIENCE, In, Issuer, private_key, signed

CLIENT = "the-admin"


@pytest.fixture
def keys(issuer: Issuer, make_provider: MakeProvider) -> KeyProvider:
    return make_provider(issuer)


def id_token(issuer: Issuer, *, key: str = "rsa", header_typ: str = "JWT", **changed: Any) -> str:
    claims = issuer.claims(**{"aud": CLIENT, "nonce": "the nonce", **changed})
    return signed({"alg": "RS256", "kid": "rsa", "typ": header_typ}, claims, private_key(key))


def verify(issuer: Issuer, keys: KeyProvider, token: Any, nonce: str | None = "the nonce") -> dict[str, Any]:
    return verify_id_token(token, nonce, TrustedIssuer(issuer.url, CLIENT, ["RS256"], 30), keys)


@pytest.mark.parametrize(
    "changed", [{}, {"azp": CLIENT}, {"aud": [CLIENT]}, {"aud": [CLIENT, "other"], "azp": CLIENT}, {"typ": "ID"}]
)
def test_verify_id_token_of_this_login_succeeds(issuer: Issuer, keys: KeyProvider, changed: dict[str, Any]) -> None:
    assert verify(issuer, keys, id_token(issuer, **changed))["sub"] == "billing"


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
        ({"typ": "Bearer"}, "not an ID token"),
        ({"typ": "Logout"}, "not an ID token"),
    ],
)
def test_verify_id_token_with_bad_claims_is_refused(
    issuer: Issuer, keys: KeyProvider, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        verify(issuer, keys, id_token(issuer, **changed))


@pytest.mark.parametrize("header", [{"crit": ["b64"]}, {"b64": True, "crit": ["b64"]}, {"crit": ["exp"]}])
def test_verify_id_token_with_a_critical_extension_is_refused(
    issuer: Issuer, keys: KeyProvider, header: dict[str, Any]
) -> None:
    claims = issuer.claims(aud=CLIENT, nonce="the nonce")
    token = signed({"alg": "RS256", "kid": "rsa", "typ": "JWT", **header}, claims, private_key("rsa"))
    with pytest.raises(TokenInvalid, match="crit"):
        verify(issuer, keys, token)


def test_verify_id_token_with_a_forged_signature_is_refused(issuer: Issuer, keys: KeyProvider) -> None:
    with pytest.raises(TokenInvalid, match="signature"):
        verify(issuer, keys, id_token(issuer, key="rsa-other"))


def test_verify_access_token_as_id_token_is_refused(issuer: Issuer, keys: KeyProvider) -> None:
    with pytest.raises(TokenInvalid, match="not an ID token"):
        verify(issuer, keys, id_token(issuer, header_typ="at+jwt"))


@pytest.mark.parametrize("token", [None, 7, {}, "", "nonsense"])
def test_verify_malformed_id_token_is_refused(issuer: Issuer, keys: KeyProvider, token: Any) -> None:
    with pytest.raises(TokenInvalid):
        verify(issuer, keys, token)


@pytest.mark.parametrize("nonce", [None, ""])
def test_verify_id_token_without_a_nonce_is_refused(issuer: Issuer, keys: KeyProvider, nonce: str | None) -> None:
    with pytest.raises(TokenInvalid, match="nonce"):
        verify(issuer, keys, id_token(issuer, nonce=""), nonce)
