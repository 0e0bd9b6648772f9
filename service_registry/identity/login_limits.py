"""Limit login attempts by the client's address, and by account and address (docs/decisions/0028)."""

import ipaddress
import math

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from service_registry.access_models import User
from service_registry.identity.exceptions import TooManyLogins
from service_registry.rate_limit import RateLimit

# A login at the provider is two attempts, its beginning and its end. Many operators may share an address.
by_address = RateLimit(burst=30, interval_seconds=2)
by_account = RateLimit(burst=5, interval_seconds=60)


class PasswordBackend(ModelBackend):
    """Signs in local users by password, with a limit on attempts that is checked before the password is hashed."""

    def authenticate(  # type: ignore[override]
        self, request: HttpRequest, username: str | None = None, password: str | None = None
    ) -> User | None:
        """Return the user; None for a wrong password. Raises TooManyLogins."""
        address = count_login_attempt(request)
        # By address too: by the account alone, a stranger who guesses could keep its owner out.
        refuse_after(by_account.take((username, address)))
        user: User | None = super().authenticate(request, username, password)
        if user:
            by_account.forget((username, address))
        return user


def count_login_attempt(request: HttpRequest) -> str:
    """Count an attempt of this client, and return its address. Raises TooManyLogins."""
    address = client_network(request.META.get("REMOTE_ADDR", ""))
    refuse_after(by_address.take(address))
    return address


def refuse_after(wait_seconds: float) -> None:
    if wait_seconds:
        raise TooManyLogins(math.ceil(wait_seconds))


def client_network(address: str) -> str:
    """Return the address; of IPv6 the /64 network, in which one client can choose any address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and not parsed.ipv4_mapped:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
