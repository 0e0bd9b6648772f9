"""The published keys of an issuer (RFC 7517), reduced to those that may verify."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

MAX_KEYS = 50
MAX_KID_CHARACTERS = 256
RSA_BITS = range(2048, 8193)
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

# The algorithms that a key of this type and curve may serve. A key without `alg` serves the first.
ALGORITHMS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): RSA_ALGORITHMS,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
SUPPORTED_ALGORITHMS = frozenset(algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms)
PUBLIC_MEMBERS = {"kty", "kid", "n", "e", "crv", "x", "y"}
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


class KeySetUnusable(Exception):
    """The document is not a key set, or has no key that may verify signatures."""


@dataclass(frozen=True, eq=False, slots=True)
class KeySet:
    """The immutable keys of one issuer, each for one algorithm.

    Attributes:
        keys: by key id and algorithm.
        document: the set as it is stored, with public members only.
        kids: the key ids.
    """

    keys: Mapping[tuple[str, str], jwt.PyJWK]
    document: dict[str, Any]
    kids: frozenset[str]

    @classmethod
    def from_document(cls, document: Any) -> "KeySet":
        """Read a JWK set. Raises KeySetUnusable.

        Keys that may not verify signatures are left out. So are two keys with the same id and algorithm, because a
        token does not identify one of them.
        """
        published = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(published, list):
            raise KeySetUnusable("it is not a JSON object with a list of keys")
        if len(published) > MAX_KEYS:
            raise KeySetUnusable(f"it has more than {MAX_KEYS} keys")
        usable = [jwk for jwk in map(read_public_jwk, published) if jwk]
        counts = Counter(key_identity(jwk) for jwk in usable)
        unique = sorted((jwk for jwk in usable if counts[key_identity(jwk)] == 1), key=key_identity)
        keys = {key_identity(jwk): key for jwk in unique if (key := load_key(jwk))}
        if not keys:
            raise KeySetUnusable("it has no key that may verify signatures")
        loaded = [jwk for jwk in unique if key_identity(jwk) in keys]
        return cls(keys, {"keys": loaded}, frozenset(kid for kid, _ in keys))


def key_identity(jwk: dict[str, str]) -> tuple[str, str]:
    return jwk["kid"], jwk["alg"]


def read_public_jwk(jwk: Any) -> dict[str, str] | None:
    """Return the public members of a signature key, with its one algorithm.

    None for any other key.
    """
    if not isinstance(jwk, dict) or PRIVATE_MEMBERS & jwk.keys() or not is_for_signatures(jwk):
        return None
    public = {name: value for name, value in jwk.items() if name in PUBLIC_MEMBERS}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    algorithms = ALGORITHMS.get((public.get("kty", ""), public.get("crv")), ())
    algorithm = jwk.get("alg", algorithms[0] if algorithms else None)
    if algorithm not in algorithms or not 0 < len(public.get("kid", "")) <= MAX_KID_CHARACTERS:
        return None
    return {**public, "alg": algorithm}


def is_for_signatures(jwk: dict[str, Any]) -> bool:
    """Return whether `use` and `key_ops` (RFC 7517, 4.2, 4.3), if given, allow it."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def load_key(jwk: dict[str, str]) -> jwt.PyJWK | None:
    """Return the key for its algorithm; None when it is malformed or too weak."""
    try:
        key = jwt.PyJWK(jwk, jwk["alg"])
    except (jwt.PyJWTError, ValueError):
        return None
    if jwk["kty"] == "RSA" and key.key.key_size not in RSA_BITS:
        return None
    return key
