"""Verify access tokens locally, without a request to the issuer for each."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid
from service_registry.identity.groups import read_groups
from service_registry.identity.key_provider import KeyProvider, get_key_provider
from service_registry.identity.key_set import KeySet
from service_registry.identity.principal import Principal, is_name
from service_registry.identity.signatures import (
    TrustedIssuer,
    VerifiedToken,
    read_key_id,
    require_length,
    verify_token,
)

# RFC 9068, 2.1, and the types of issuers that do not follow it. A media type is compared in lower case.
HEADER_TYPES = {"at+jwt", "application/at+jwt", "jwt"}
# The payload `typ` of Keycloak's tokens that are not for an API.
OTHER_TYPES = {"id", "refresh", "offline", "logout"}
# Only ID tokens have these claims (OpenID Connect Core, 2 and 3.1.3.6).
ID_TOKEN_CLAIMS = {"nonce", "at_hash", "c_hash"}

CACHE_SECONDS = 60
CACHE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class TokenCache:
    """A cache of tokens that were verified with one key set, by their digests.

    A look-up costs 2 us, a signature 100 us and more. Reads take no lock.
    """

    key_set: KeySet
    max_entries: int
    max_age_seconds: float
    entries: dict[bytes, tuple[Principal, float]] = field(default_factory=dict)
    adding: threading.Lock = field(default_factory=threading.Lock)

    def get(self, digest: bytes) -> Principal | None:
        principal, valid_until = self.entries.get(digest, (None, 0.0))
        if principal and time.monotonic() < valid_until and time.time() < principal.expires_at:
            return principal
        return None

    def add(self, digest: bytes, principal: Principal) -> None:
        """Add an entry; a full cache evicts its oldest one."""
        with self.adding:
            self.entries.pop(digest, None)
            if len(self.entries) >= self.max_entries:
                del self.entries[next(iter(self.entries))]
            self.entries[digest] = principal, time.monotonic() + self.max_age_seconds


class TokenVerifier:
    """Verifies the access tokens of one issuer, with a cache.

    Arguments:
        group_claims: dotted paths of the claims with group names.
        cache_entries, cache_seconds: how many verified tokens are cached, and for how long.
    """

    def __init__(
        self,
        trusted: TrustedIssuer,
        group_claims: Sequence[str],
        keys: KeyProvider,
        *,
        cache_entries: int = CACHE_ENTRIES,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self.trusted = trusted
        self.group_claims = group_claims
        self.keys = keys
        self._cache_limits = cache_entries, cache_seconds
        self._cache: TokenCache | None = None

    def verify(self, token: str) -> Principal:
        """Return the principal of a token. Raises TokenInvalid, or KeysUnavailable."""
        require_length(token)
        cached = self._cache_of(self.keys.current()).get(hash_token(token))
        if cached:
            return cached
        verified = verify_token(token, self.trusted, self.keys)
        check_type(verified)
        principal = self._read_principal(verified.claims)
        self._cache_of(verified.key_set).add(hash_token(token), principal)
        return principal

    def verify_at_once(self, token: str) -> Principal | None:
        """Return the principal, or None when keys may have to be fetched first.

        Raises TokenInvalid, or KeysUnavailable.
        """
        require_length(token)
        key_set = self.keys.current()
        cached = self._cache_of(key_set).get(hash_token(token))
        return cached or (self.verify(token) if read_key_id(token) in key_set.kids else None)

    def _cache_of(self, key_set: KeySet) -> TokenCache:
        """Return the cache of this key set.

        A new key set starts with an empty cache. A thread that still has the replaced set may empty the cache once
        more, which does no harm.
        """
        cache = self._cache
        if cache is None or cache.key_set is not key_set:
            cache = self._cache = TokenCache(key_set, *self._cache_limits)
        return cache

    def _read_principal(self, claims: dict[str, Any]) -> Principal:
        subject = claims["sub"]
        if not is_name(subject):
            raise TokenInvalid("its sub is empty, too long, or has control characters")
        client = next((claims[name] for name in ("azp", "client_id") if is_name(claims.get(name))), None)
        groups = read_groups(claims, self.group_claims)
        return Principal(self.trusted.issuer, subject, client, groups, float(claims["exp"]))


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def check_type(verified: VerifiedToken) -> None:
    """Refuse tokens that are not bearer access tokens. Raises TokenInvalid."""
    header_type = verified.header.get("typ", "JWT")
    if not isinstance(header_type, str) or header_type.lower() not in HEADER_TYPES:
        raise TokenInvalid("its header typ is not that of an access token")
    if str(verified.claims.get("typ")).lower() in OTHER_TYPES:
        raise TokenInvalid("it is not an access token (typ)")
    if ID_TOKEN_CLAIMS & verified.claims.keys():
        raise TokenInvalid("it is an ID token; send the access token")
    if "cnf" in verified.claims:
        raise TokenInvalid("it is bound to a key or certificate (cnf), and proof of that is not supported")


_verifiers: dict[KeyProvider, TokenVerifier] = {}


def verify_access_token(token: str) -> Principal:
    """Return the principal of an access token of the configured issuer.

    Raises TokenInvalid when it is refused, and KeysUnavailable when it cannot be verified. Neither repeats the token.
    """
    return get_verifier().verify(token)


def verify_access_token_at_once(token: str) -> Principal | None:
    """Return the principal without waiting; None when it is refused or has to wait."""
    try:
        return get_verifier().verify_at_once(token)
    except (TokenInvalid, KeysUnavailable):
        return None


def get_verifier() -> TokenVerifier:
    """Return the verifier of this process for the configured issuer."""
    keys = get_key_provider()
    return _verifiers.get(keys) or _verifiers.setdefault(keys, create_configured_verifier(keys))


def create_configured_verifier(keys: KeyProvider) -> TokenVerifier:
    trusted = TrustedIssuer(
        settings.OIDC_ISSUER, settings.OIDC_AUDIENCE, settings.OIDC_ALGORITHMS, settings.OIDC_LEEWAY_SECONDS
    )
    return TokenVerifier(trusted, settings.OIDC_GROUP_CLAIMS, keys)
