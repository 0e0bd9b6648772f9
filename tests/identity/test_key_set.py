"""Key sets: which published keys may verify a signature."""

from typing import Any

import pytest

from service_registry.identity.key_set import KeySet, KeySetUnusable
from tests.identity.issuer_server import jwk

GOOD = jwk("rsa-other", "RS256", kid="good")
P521_X = "A" * 88


def algorithms(*keys: Any) -> set[tuple[str, str]]:
    """Return the keys of the set besides the one good key."""
    return set(KeySet.from_document({"keys": [GOOD, *keys]}).keys) - {("good", "RS256")}


@pytest.mark.parametrize(
    ("key", "alg", "served"),
    [
        ("rsa", "RS256", "RS256"),
        ("rsa", "PS256", "PS256"),
        ("rsa", None, "RS256"),
        ("ec", None, "ES256"),
        ("ec-384", None, "ES384"),
        ("ed", None, "EdDSA"),
    ],
)
def test_key_serves_exactly_one_algorithm(key: str, alg: str | None, served: str) -> None:
    assert algorithms(jwk(key, alg)) == {(key, served)}


@pytest.mark.parametrize(
    "key",
    [
        jwk("rsa", "RS256", use="enc"),
        jwk("rsa", "RSA-OAEP"),
        jwk("rsa", "HS256"),
        jwk("rsa", "none"),
        jwk("rsa", "ES256"),
        jwk("ec", "ES384"),
        jwk("rsa", "RS256", d="AQAB"),
        jwk("rsa-1024", "RS256"),
        jwk("rsa", "RS256", kid=None),
        jwk("rsa", "RS256", kid=""),
        jwk("rsa", "RS256", kid=7),
        jwk("rsa", "RS256", kid="k" * 257),
        jwk("rsa", "RS256", n="!!"),
        jwk("rsa", "RS256", n=7),
        jwk("rsa", "RS256", n=None),
        jwk("rsa", "RS256", key_ops=["encrypt"]),
        jwk("rsa", "RS256", key_ops="verify"),
        {**jwk("rsa", None), "alg": ["RS256"]},
        jwk("ec", "ES256", x="AAAA"),
        jwk("ec", None, crv="P-521", x=P521_X, y=P521_X),
        jwk("ec", None, crv="secp256k1"),
        jwk("ed", None, crv="X25519"),
        {"kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": ["RSA"], "kid": "k"},
        None,
        "key",
        [],
    ],
)
def test_unusable_key_is_left_out(key: Any) -> None:
    assert algorithms(key) == set()


def test_keys_with_equal_id_and_algorithm_are_both_left_out() -> None:
    assert algorithms(jwk("rsa", "RS256", kid="k"), jwk("rsa", None, kid="k"), jwk("ec", None, kid="k")) == {
        ("k", "ES256")
    }


@pytest.mark.parametrize(
    "document",
    [None, [], "keys", {}, {"keys": None}, {"keys": {}}, {"keys": []}, {"keys": [GOOD] * 51}, {"keys": [GOOD] * 2}],
)
def test_document_without_usable_keys_is_refused(document: Any) -> None:
    with pytest.raises(KeySetUnusable):
        KeySet.from_document(document)


def test_document_with_the_maximum_number_of_keys_is_accepted() -> None:
    assert len(KeySet.from_document({"keys": [jwk("ec", None, kid=str(number)) for number in range(50)]}).keys) == 50


def test_stored_document_reads_back_equal_and_has_public_members_only() -> None:
    key_set = KeySet.from_document({"keys": [jwk("ed", None, x5c=["..."], note="private?"), jwk("rsa", None)]})
    again = KeySet.from_document(key_set.document)
    assert again.document == key_set.document
    assert again.keys.keys() == key_set.keys.keys()
    assert set().union(*key_set.document["keys"]) == {"kty", "kid", "alg", "n", "e", "crv", "x"}
