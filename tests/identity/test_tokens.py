"""Which tokens are taken, and for each that is refused the reason why."""

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
from service_registry.identity import tokens
from service_registry.identity.errors import KeysUnavailable, TokenInvalid
from service_registry.identity.signatures import Trust
from service_registry.identity.tokens import TokenVerifier
from tests.identity.conftest import MakeProvider
from tests.identity.issuing import AUDIENCE, In, Issuer, base64url, jwk, private_key, signed, until

ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"]


def verifier(issuer: Issuer, provider_of: MakeProvider, **pace: float) -> TokenVerifier:
    trust = Trust(issuer.url, AUDIENCE, ALGORITHMS, 30)
    return TokenVerifier(trust, ["groups", "realm_access.roles"], provider_of(issuer, **pace))


@pytest.fixture
def judge(issuer: Issuer, provider_of: MakeProvider) -> TokenVerifier:
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
    return verifier(issuer, provider_of, wait_seconds=1)


def refusal(judge: TokenVerifier, token: str) -> str:
    """Why it is refused; the text must not repeat any part of the token."""
    with pytest.raises(TokenInvalid) as refused:
        judge.principal_of(token)
    assert all(len(part) < 8 or part not in str(refused.value) for part in token.split("."))
    return str(refused.value)


def test_a_token_becomes_its_principal(issuer: Issuer, judge: TokenVerifier) -> None:
    claims: dict[str, Any] = {
        "groups": ["/team"],
        "realm_access": {"roles": ["registry-services"]},
        "azp": "billing-client",
    }
    principal = judge.principal_of(issuer.token(**claims))
    assert (principal.issuer, principal.subject, principal.client) == (issuer.url, "billing", "billing-client")
    assert principal.groups == {"team", "registry-services"}
    assert principal.actor == f"billing@{issuer.url}"
    assert 290 < principal.expires_at - time.time() <= 300


@pytest.mark.parametrize(("key", "alg"), [("rsa", "RS256"), ("rsa-other", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")])
def test_it_takes_each_algorithm(issuer: Issuer, judge: TokenVerifier, key: str, alg: str) -> None:
    assert judge.principal_of(issuer.token(key, alg)).subject == "billing"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", None])
def test_it_takes_the_header_types_of_access_tokens(issuer: Issuer, judge: TokenVerifier, typ: str | None) -> None:
    header = {"alg": "RS256", "kid": "rsa"} | ({"typ": typ} if typ else {})
    assert judge.principal_of(signed(header, issuer.claims(), private_key("rsa"))).subject == "billing"


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
def test_it_takes_what_issuers_send(issuer: Issuer, judge: TokenVerifier, changed: dict[str, Any]) -> None:
    judge.principal_of(issuer.token(**changed))


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
def test_the_client_is_named_where_it_is_sane(
    issuer: Issuer, judge: TokenVerifier, changed: dict[str, Any], client: str | None
) -> None:
    assert judge.principal_of(issuer.token(**changed)).client == client


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
        ({"exp": float("nan")}, "good form"),
        ({"exp": [99999999999]}, "good form"),
        ({"iat": None}, "claim is missing"),
        ({"iat": In(600)}, "not valid yet"),
        ({"iat": "1700000000"}, "iat is not a number"),
        ({"iat": True}, "iat is not a number"),
        ({"iat": -(10**300)}, "longer than a day"),
        ({"nbf": In(600)}, "not valid yet"),
        ({"nbf": "soon"}, "good form"),
        ({"nbf": "1700000000"}, "nbf is not a number"),
        ({"nbf": None, "sub": None}, "claim is missing"),
        ({"sub": ""}, "sub"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "a\0"}, "sub"),
        ({"sub": "\x9b2J"}, "sub"),
        ({"sub": "\ud800"}, "sub"),
        ({"sub": 7}, "good form"),
        ({"typ": "ID"}, "no access token"),
        ({"typ": "Refresh"}, "no access token"),
        ({"typ": "Offline"}, "no access token"),
        ({"typ": "Logout"}, "no access token"),
        ({"nonce": "n"}, "ID token"),
        ({"at_hash": "h"}, "ID token"),
        ({"c_hash": "h"}, "ID token"),
        ({"cnf": {"jkt": "thumb"}}, "bound to a key"),
        ({"filling": "x" * 9000}, "longer than 8192"),
    ],
)
def test_it_refuses_claims(issuer: Issuer, judge: TokenVerifier, changed: dict[str, Any], reason: str) -> None:
    assert reason in refusal(judge, issuer.token(**changed))


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
        ({"kid": None}, "good form"),
        ({"kid": ["rsa"]}, "good form"),
        ({"kid": "ec"}, "not that of its key"),
        ({"kid": "rsa-other"}, "not that of its key"),
        ({"alg": "PS256"}, "not that of its key"),
        ({"alg": "RS512"}, "not accepted"),
        ({"crit": ["exp"], "exp": 1}, "good form"),
        ({"b64": False, "crit": ["b64"]}, "good form"),
    ],
)
def test_it_refuses_headers(issuer: Issuer, judge: TokenVerifier, header: dict[str, Any], reason: str) -> None:
    token = signed({"alg": "RS256", "kid": "rsa", **header}, issuer.claims(), private_key("rsa"))
    assert reason in refusal(judge, token)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7])
def test_it_refuses_a_token_without_a_signature(issuer: Issuer, judge: TokenVerifier, alg: Any) -> None:
    header = json.dumps({"alg": alg, "kid": "rsa"})
    token = f"{base64url(header.encode())}.{base64url(json.dumps(issuer.claims()).encode())}."
    assert "algorithm" in refusal(judge, token)


def test_it_refuses_the_public_key_as_a_secret(issuer: Issuer, judge: TokenVerifier) -> None:
    """The classic: HS256 with the published key as the shared secret."""
    pem = (
        private_key("rsa")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    content = f"{base64url(json.dumps({'alg': 'HS256', 'kid': 'rsa'}).encode())}."
    content += base64url(json.dumps(issuer.claims()).encode())
    forged = f"{content}.{base64url(hmac.digest(pem, content.encode(), hashlib.sha256))}"
    assert "not accepted" in refusal(judge, forged)


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk", "x5c"])
def test_it_follows_no_key_that_the_token_brings(issuer: Issuer, judge: TokenVerifier, member: str) -> None:
    brought = {
        "jku": f"{issuer.url}/evil",
        "x5u": f"{issuer.url}/evil",
        "jwk": jwk("rsa-other", "RS256"),
        "x5c": ["MIIB"],
    }
    header = {"alg": "RS256", "kid": "rsa", member: brought[member]}
    assert "signature" in refusal(judge, signed(header, issuer.claims(), private_key("rsa-other")))
    assert "/realm/evil" not in issuer.asked


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
def test_it_refuses_json_that_two_readers_might_read_differently(
    issuer: Issuer, judge: TokenVerifier, header: str, claims: str
) -> None:
    members = json.dumps(issuer.claims())[1:-1]
    if claims.startswith('{"sub"'):
        members = json.dumps(issuer.claims(sub=None))[1:-1]
    refusal(judge, signed(header, claims.replace("%s", members), private_key("rsa")))


@pytest.mark.parametrize("exp", ["1e400", "-1e400", "9" * 5000])
def test_it_refuses_numbers_that_are_none(issuer: Issuer, judge: TokenVerifier, exp: str) -> None:
    claims = json.dumps(issuer.claims(exp=0)).replace('"exp": 0', f'"exp": {exp}')
    refusal(judge, signed({"alg": "RS256", "kid": "rsa"}, claims, private_key("rsa")))


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
def test_it_refuses_what_is_no_token(judge: TokenVerifier, token: str) -> None:
    refusal(judge, token)


def test_it_refuses_a_token_that_was_changed(issuer: Issuer, judge: TokenVerifier) -> None:
    header, claims, signature = issuer.token().split(".")
    other = base64url(json.dumps(issuer.claims(sub="admin")).encode())
    assert "signature" in refusal(judge, f"{header}.{other}.{signature}")
    assert "signature" in refusal(judge, f"{header}.{claims}.{signature[:-8]}AAAAAAAA")
    refusal(judge, f"{header}.{claims}.")
    refusal(judge, f"{header}.{claims}.{signature}.{signature}")


def test_a_token_of_another_issuer_fetches_nothing(issuer: Issuer, judge: TokenVerifier) -> None:
    judge.principal_of(issuer.token())
    refusal(judge, issuer.token(kid="unknown", iss="https://other.example"))
    assert issuer.fetches == 1


def test_unknown_keys_fetch_once(issuer: Issuer, judge: TokenVerifier) -> None:
    judge.principal_of(issuer.token())
    for number in range(20):
        refusal(judge, issuer.token(kid=f"unknown-{number}"))
    assert issuer.fetches == 2


def test_a_rotated_key_is_found_at_its_first_token(issuer: Issuer, judge: TokenVerifier) -> None:
    judge.principal_of(issuer.token())
    old = issuer.token("ec", "ES256")
    judge.principal_of(old)
    issuer.jwks = {"keys": [jwk("rsa", "RS256", kid="new")]}
    assert judge.principal_of(issuer.token(kid="new")).subject == "billing"
    assert "not one of the issuer's" in refusal(judge, old)


def test_a_good_token_does_not_wait_for_a_hanging_issuer(issuer: Issuer, judge: TokenVerifier) -> None:
    judge.principal_of(issuer.token())
    issuer.answers["/realm/jwks"] = issuer.hang
    bad = threading.Thread(target=refusal, args=[judge, issuer.token(kid="unknown")])
    bad.start()
    until(lambda: issuer.fetches == 2)
    begun_at = time.monotonic()
    judge.principal_of(issuer.token(sub="another"))
    assert time.monotonic() - begun_at < 0.1
    bad.join(3)
    assert not bad.is_alive()


def test_nothing_can_be_judged_without_keys(issuer: Issuer, provider_of: MakeProvider) -> None:
    issuer.answers.clear()
    with pytest.raises(KeysUnavailable):
        verifier(issuer, provider_of, wait_seconds=0.1).principal_of(issuer.token())


def test_a_verified_token_is_remembered_but_not_past_its_end(issuer: Issuer, judge: TokenVerifier) -> None:
    token = issuer.token(exp=time.time() + 0.2)
    first = judge.principal_of(token)
    assert judge.principal_of(token) is first
    time.sleep(0.25)
    assert judge.principal_of(token) is not first  # good for the leeway still, but verified anew


def test_what_is_remembered_has_a_bound_and_an_age(issuer: Issuer, judge: TokenVerifier) -> None:
    two = TokenVerifier(judge.trust, judge.group_claims, judge.keys, remembered=2)
    several = [issuer.token(sub=f"service-{number}") for number in range(3)]
    principals = [two.principal_of(token) for token in several]
    assert two.principal_of(several[2]) is principals[2]
    assert two.principal_of(several[0]) is not principals[0]
    forgetful = TokenVerifier(judge.trust, judge.group_claims, judge.keys, remembered_seconds=0)
    fresh = issuer.token(sub="fresh")
    assert forgetful.principal_of(fresh) is not forgetful.principal_of(fresh)


def test_a_token_of_the_configured_issuer() -> None:
    token = issue_token(
        settings.REGISTRY_DATA_DIR, settings.OIDC_ISSUER, "you", ["registry-readers"], settings.OIDC_AUDIENCE
    )
    principal = tokens.principal_of(token)
    assert (principal.actor, principal.groups) == (f"you@{settings.OIDC_ISSUER}", frozenset({"registry-readers"}))
    with pytest.raises(TokenInvalid):
        tokens.principal_of(jwt.encode({"sub": "you"}, "s" * 32, "HS256"))
