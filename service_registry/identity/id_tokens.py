"""ID tokens (OpenID Connect Core, 2 and 3.1.3.7): who has just signed in to the admin."""

import hmac
from typing import Any

from django.conf import settings

from service_registry.identity.errors import TokenInvalid
from service_registry.identity.keys import KeyProvider
from service_registry.identity.principal import is_name
from service_registry.identity.signatures import Trust, verified

# Keycloak's payload `typ` of tokens that speak of no login.
OTHER_KINDS = {"bearer", "refresh", "offline", "logout"}


def configured_trust() -> Trust:
    """The configured issuer, with the admin's client as audience: the API's tokens are meant for another."""
    return Trust(
        settings.OIDC_ISSUER, settings.OIDC_RP_CLIENT_ID, settings.OIDC_ALGORITHMS, settings.OIDC_LEEWAY_SECONDS
    )


def login_claims(id_token: Any, nonce: str | None, trust: Trust, keys: KeyProvider) -> dict[str, Any]:
    """The claims of the ID token of the login that began with `nonce`. Raises TokenInvalid, or KeysUnavailable."""
    if not isinstance(id_token, str):
        raise TokenInvalid("there is no ID token")
    signed = verified(id_token, trust, keys)
    claims = signed.claims
    if str(signed.header.get("typ", "JWT")).lower() != "jwt" or str(claims.get("typ")).lower() in OTHER_KINDS:
        raise TokenInvalid("it is no ID token (typ)")
    check_party(claims, trust.audience)
    if not nonce or not isinstance(claims.get("nonce"), str) or not same(nonce, claims["nonce"]):
        raise TokenInvalid("it is not of this login (nonce)")
    if not is_name(claims["sub"]):
        raise TokenInvalid("its sub is empty, too long, or holds control characters")
    return claims


def check_party(claims: dict[str, Any], client_id: str) -> None:
    """With several audiences `azp` says for which of them it was made. Raises TokenInvalid."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if ("azp" in claims or several) and claims.get("azp") != client_id:
        raise TokenInvalid("it was made for another client (azp)")


def same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))
