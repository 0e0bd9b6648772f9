"""Access tokens: which are accepted, and why others are refused."""

import hashlib
import hmac
import json
import threading
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from django.conf import settings

from registry_project.devstack.issuer.tokens import issue_token
from service_registry.identity import access_tokens
from service_registry.identity.access_tokens import TokenVerifier
from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid
from service_registry.identity.signatures import TrustedIssuer
from tests.identity.conftest import MakeProvider
from tests.identity.issuer_server import AUDIENCE, In, Issuer, base64url, jwk, private_key, signed
from tests.waiting import wait_for

ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"]


def make_verifier(issuer: Issuer, make_provider: MakeProvider, **times: float) -> TokenVerifier:
    trust = TrustedIssuer(issuer.url, AUDIENCE, ALGORITHMS, 30)
    return TokenVerifier(trust, ["groups", "realm_access.roles"], make_provider(issuer, **times))


@pytest.fixture
def verifier(issuer: Issuer, make_provider: MakeProvider) -> TokenVerifier:
    issuer.jwks = {
        "keys": [
            jwk("rsa", "RS256"),
            jwk("rsa-other", "PS256"),
            jwk("ec", None),
            jwk("ed", None),
            jwk("ec-384", None),
            jwk("rsa", "RS256", kid="for-encryption", use="enc"),
        ]
    }
    return make_verifier(issuer, make_provider, wait_seconds=1)


def refusal(verifier: TokenVerifier, token: str) -> str:
    """Return why the token is refused; the text must not repeat any part of it."""
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify(token)
    assert all(len(part) < 8 or part not in str(refused.value) for part in token.split("."))
    return str(refused.value)


def test_verify_valid_token_returns_its_principal(issuer: Issuer, verifier: TokenVerifier) -> None:
    claims: dict[str, Any] = {
        "groups": ["/team"],
        "realm_access": {"roles": ["registry-services"]},
        "azp": "billing-client",
    }
    principal = verifier.verify(issuer.token(**claims))
    assert (principal.issuer, principal.subject, principal.client) == (issuer.url, "billing", "billing-client")
    assert principal.groups == {"team", "registry-services"}
    assert principal.actor == f"billing@{issuer.url}"
    assert 290 < principal.expires_at - time.time() <= 300


@pytest.mark.parametrize(("key", "alg"), [("rsa", "RS256"), ("rsa-other", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")])
def test_verify_token_of_each_accepted_algorithm_succeeds(
    issuer: Issuer, verifier: TokenVerifier, key: str, alg: str
) -> None:
    assert verifier.verify(issuer.token(key, alg)).subject == "billing"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", None])
def test_verify_token_with_a_known_header_type_succeeds(
    issuer: Issuer, verifier: TokenVerifier, typ: str | None
) -> None:
    header = {"alg": "RS256", "kid": "rsa"} | ({"typ": typ} if typ else {})
    assert verifier.verify(signed(header, issuer.claims(), private_key("rsa"))).subject == "billing"


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": [AUDIENCE, "account"]},
        {"typ": "Bearer"},
        {"exp": In(3000.5), "iat": In(-0.5)},
        {"exp": In(-5), "iat": In(-100)},
        {"nbf": In(10)},
        {"sub": "x" * 255},
        {"sub": "Ü-ñ-日本"},
        {"groups": 7},
    ],
)
def test_verify_token_with_the_claims_of_real_issuers_succeeds(
    issuer: Issuer, verifier: TokenVerifier, changed: dict[str, Any]
) -> None:
    verifier.verify(issuer.token(**changed))


@pytest.mark.parametrize(
    ("changed", "client"),
    [
        ({"azp": "a", "client_id": "b"}, "a"),
        ({"client_id": "b"}, "b"),
        ({"azp": 7, "client_id": "b"}, "b"),
        ({"azp": "a\n"}, None),
        ({}, None),
    ],
)
def test_client_of_a_token_is_read_from_azp_or_client_id(
    issuer: Issuer, verifier: TokenVerifier, changed: dict[str, Any], client: str | None
) -> None:
    assert verifier.verify(issuer.token(**changed)).client == client


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "https://other.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": ["https://other.example"]}, "another issuer"),
        ({"aud": None}, "claim is missing"),
        ({"aud": "another-api"}, "another audience"),
        ({"aud": AUDIENCE + "/"}, "another audience"),
        ({"aud": {AUDIENCE: True}}, "another audience"),
        ({"aud": [AUDIENCE, 7]}, "another audience"),
        ({"exp": In(-60), "iat": In(-600)}, "expired"),
        ({"exp": None}, "claim is missing"),
        ({"exp": "99999999999"}, "exp is not a number"),
        ({"exp": True}, "expired"),
        ({"exp": 10**400}, "longer than a day"),
        ({"exp": In(86400 + 200)}, "longer than a day"),
        ({"exp": float("nan")}, "well-formed"),
        ({"exp": [99999999999]}, "well-formed"),
        ({"iat": None}, "claim is missing"),
        ({"iat": In(600)}, "not valid yet"),
        ({"iat": "1700000000"}, "iat is not a number"),
        ({"iat": True}, "iat is not a number"),
        ({"iat": -(10**300)}, "longer than a day"),
        ({"nbf": In(600)}, "not valid yet"),
        ({"nbf": "soon"}, "well-formed"),
        ({"nbf": "1700000000"}, "nbf is not a number"),
        ({"nbf": None, "sub": None}, "claim is missing"),
        ({"sub": ""}, "sub"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "a\0"}, "sub"),
        ({"sub": "\x9b2J"}, "sub"),
        ({"sub": "\ud800"}, "sub"),
        ({"sub": 7}, "well-formed"),
        ({"typ": "ID"}, "not an access token"),
        ({"typ": "Refresh"}, "not an access token"),
        ({"typ": "Offline"}, "not an access token"),
        ({"typ": "Logout"}, "not an access token"),
        ({"nonce": "n"}, "ID token"),
        ({"at_hash": "h"}, "ID token"),
        ({"c_hash": "h"}, "ID token"),
        ({"cnf": {"jkt": "thumb"}}, "bound to a key"),
        ({"filling": "x" * 9000}, "longer than 8192"),
    ],
)
def test_verify_token_with_bad_claims_is_refused(
    issuer: Issuer, verifier: TokenVerifier, changed: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(verifier, issuer.token(**changed))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "dpop+jwt"}, "header typ"),
        ({"typ": "logout+jwt"}, "header typ"),
        ({"typ": ["at+jwt"]}, "header typ"),
        ({"typ": None}, "header typ"),
        ({"kid": "nobody"}, "not one of the issuer's"),
        ({"kid": "for-encryption"}, "not one of the issuer's"),
        ({"kid": "k" * 257}, "name its key"),
        ({"kid": ""}, "name its key"),
        ({"kid": None}, "well-formed"),
        ({"kid": ["rsa"]}, "well-formed"),
        ({"kid": "ec"}, "not that of its key"),
        ({"kid": "rsa-other"}, "not that of its key"),
        ({"alg": "PS256"}, "not that of its key"),
        ({"alg": "RS512"}, "not accepted"),
        ({"crit": ["exp"], "exp": 1}, "crit"),
        ({"crit": ["b64"]}, "crit"),
        ({"b64": True, "crit": ["b64"]}, "crit"),
        ({"b64": False, "crit": ["b64"]}, "crit"),
        ({"crit": []}, "crit"),
        ({"crit": None}, "crit"),
        ({"b64": False}, "well-formed"),
    ],
)
def test_verify_token_with_a_bad_header_is_refused(
    issuer: Issuer, verifier: TokenVerifier, header: dict[str, Any], reason: str
) -> None:
    token = signed({"alg": "RS256", "kid": "rsa", **header}, issuer.claims(), private_key("rsa"))
    assert reason in refusal(verifier, token)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7])
def test_verify_token_without_a_signature_is_refused(issuer: Issuer, verifier: TokenVerifier, alg: Any) -> None:
    header = json.dumps({"alg": alg, "kid": "rsa"})
    token = f"{base64url(header.encode())}.{base64url(json.dumps(issuer.claims()).encode())}."
    assert "algorithm" in refusal(verifier, token)


def test_verify_token_signed_with_the_public_key_as_secret_is_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    """HS256 with the published key as the shared secret is a well-known attack."""
    pem = (
        private_key("rsa")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    content = f"{base64url(json.dumps({'alg': 'HS256', 'kid': 'rsa'}).encode())}."
    content += base64url(json.dumps(issuer.claims()).encode())
    forged = f"{content}.{base64url(hmac.digest(pem, content.encode(), hashlib.sha256))}"
    assert "not accepted" in refusal(verifier, forged)


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk", "x5c"])
def test_verify_token_with_a_key_in_its_header_ignores_that_key(
    issuer: Issuer, verifier: TokenVerifier, member: str
) -> None:
    keys = {
        "jku": f"{issuer.url}/evil",
        "x5u": f"{issuer.url}/evil",
        "jwk": jwk("rsa-other", "RS256"),
        "x5c": ["MIIB"],
    }
    header = {"alg": "RS256", "kid": "rsa", member: keys[member]}
    assert "signature" in refusal(verifier, signed(header, issuer.claims(), private_key("rsa-other")))
    assert "/realm/evil" not in issuer.requested


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ('{"alg":"RS256","kid":"rsa"}', '{"sub":"billing","sub":"admin",%s}'),
        ('{"alg":"RS256","kid":"rsa","kid":"rsa"}', "{%s}"),
        ('{"alg":"RS256","kid":"rsa"}', '{"groups":["a"],"x":{"b":1,"b":2},%s}'),
        ('{"alg":"RS256","kid":"rsa"}', '{"x":NaN,%s}'),
        ('{"alg":"RS256","kid":"rsa"}', '{"x":' + "[" * 3000 + "]" * 3000 + "}"),
        ('{"alg":"RS256","kid":"rsa"}', "[]"),
        ('{"alg":"RS256","kid":"rsa"}', "null"),
        ('{"alg":"RS256","kid":"rsa"}', "no JSON"),
        ('{"alg":"RS256","kid":"rsa"}', '{"exp":1e400,"iat":1,"sub":"s"}'),
    ],
    ids=lambda value: value[:40],
)
def test_verify_token_with_ambiguous_json_is_refused(
    issuer: Issuer, verifier: TokenVerifier, header: str, claims: str
) -> None:
    members = json.dumps(issuer.claims())[1:-1]
    if claims.startswith('{"sub"'):
        members = json.dumps(issuer.claims(sub=None))[1:-1]
    refusal(verifier, signed(header, claims.replace("%s", members), private_key("rsa")))


@pytest.mark.parametrize("exp", ["1e400", "-1e400", "9" * 5000])
def test_verify_token_with_an_impossible_number_is_refused(issuer: Issuer, verifier: TokenVerifier, exp: str) -> None:
    claims = json.dumps(issuer.claims(exp=0)).replace('"exp": 0', f'"exp": {exp}')
    refusal(verifier, signed({"alg": "RS256", "kid": "rsa"}, claims, private_key("rsa")))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "é.é.é",
        "\ud800",
        "\0",
        "e30.e30.",
        "e30.e30.e30",
        "x" * 9000,
        "eyJ9.e30.AA",
    ],
    ids=ascii,
)
def test_verify_malformed_token_is_refused(verifier: TokenVerifier, token: str) -> None:
    refusal(verifier, token)


def test_verify_modified_token_is_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    header, claims, signature = issuer.token().split(".")
    other = base64url(json.dumps(issuer.claims(sub="admin")).encode())
    assert "signature" in refusal(verifier, f"{header}.{other}.{signature}")
    assert "signature" in refusal(verifier, f"{header}.{claims}.{signature[:-8]}AAAAAAAA")
    refusal(verifier, f"{header}.{claims}.")
    refusal(verifier, f"{header}.{claims}.{signature}.{signature}")


def test_verify_token_of_another_issuer_fetches_no_keys(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(issuer.token())
    refusal(verifier, issuer.token(kid="unknown", iss="https://other.example"))
    assert issuer.fetches == 1


def test_verify_tokens_with_unknown_keys_fetches_once(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(issuer.token())
    for number in range(20):
        refusal(verifier, issuer.token(kid=f"unknown-{number}"))
    assert issuer.fetches == 2


def test_verify_first_token_of_a_rotated_key_succeeds(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(issuer.token())
    old = issuer.token("ec", "ES256")
    verifier.verify(old)
    issuer.jwks = {"keys": [jwk("rsa", "RS256", kid="new")]}
    assert verifier.verify(issuer.token(kid="new")).subject == "billing"
    assert "not one of the issuer's" in refusal(verifier, old)


def test_verify_valid_token_does_not_wait_for_an_issuer_that_hangs(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(issuer.token())
    issuer.answers["/realm/jwks"] = issuer.hang
    bad = threading.Thread(target=refusal, args=[verifier, issuer.token(kid="unknown")])
    bad.start()
    wait_for(lambda: issuer.fetches == 2)
    verifier.verify(issuer.token(sub="another"))
    assert bad.is_alive()
    bad.join(60)
    assert not bad.is_alive()


def test_verify_without_keys_raises_keys_unavailable(issuer: Issuer, make_provider: MakeProvider) -> None:
    issuer.answers.clear()
    with pytest.raises(KeysUnavailable):
        make_verifier(issuer, make_provider, wait_seconds=0.1).verify(issuer.token())


def test_verify_access_token_of_the_configured_issuer_succeeds() -> None:
    token = issue_token(
        settings.REGISTRY_DATA_DIR, settings.OIDC_ISSUER, "you", ["registry-readers"], settings.OIDC_AUDIENCE
    )
    principal = access_tokens.verify_access_token(token)
    assert (principal.actor, principal.groups) == (f"you@{settings.OIDC_ISSUER}", frozenset({"registry-readers"}))
    with pytest.raises(TokenInvalid):
        access_tokens.verify_access_token(jwt.encode({"sub": "you"}, "s" * 32, "HS256"))
