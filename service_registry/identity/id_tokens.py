"""Verify ID tokens (OpenID Connect Core, 2 and 3.1.3.7) of logins to the admin."""

import hmac
from typing import Any

from django.conf import settings

from service_registry.identity.exceptions import TokenInvalid
from service_registry.identity.key_provider import KeyProvider
from service_registry.identity.principal import is_name
from service_registry.identity.signatures import TrustedIssuer, verify_token

# The payload `typ` of Keycloak's other tokens.
OTHER_TYPES = {"bearer", "refresh", "offline", "logout"}


def trusted_issuer_of_logins() -> TrustedIssuer:
    """Return the configured issuer with the admin's client as audience."""
    return TrustedIssuer(
        settings.OIDC_ISSUER, settings.OIDC_RP_CLIENT_ID, settings.OIDC_ALGORITHMS, settings.OIDC_LEEWAY_SECONDS
    )


def verify_id_token(id_token: Any, nonce: str | None, trusted: TrustedIssuer, keys: KeyProvider) -> dict[str, Any]:
    """Return the claims of the ID token of the login that began with `nonce`.

    Raises TokenInvalid, or KeysUnavailable.
    """
    if not isinstance(id_token, str):
        raise TokenInvalid("there is no ID token")
    verified = verify_token(id_token, trusted, keys)
    claims = verified.claims
    if str(verified.header.get("typ", "JWT")).lower() != "jwt" or str(claims.get("typ")).lower() in OTHER_TYPES:
        raise TokenInvalid("it is not an ID token (typ)")
    check_authorized_party(claims, trusted.audience)
    if not nonce or not isinstance(claims.get("nonce"), str) or not equal(nonce, claims["nonce"]):
        raise TokenInvalid("it is not of this login (nonce)")
    if not is_name(claims["sub"]):
        raise TokenInvalid("its sub is empty, too long, or has control characters")
    return claims


def check_authorized_party(claims: dict[str, Any], client_id: str) -> None:
    """Require `azp` to be this client. Only with several audiences it is mandatory.

    Raises TokenInvalid.
    """
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if ("azp" in claims or several) and claims.get("azp") != client_id:
        raise TokenInvalid("it is for another client (azp)")


def equal(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))
