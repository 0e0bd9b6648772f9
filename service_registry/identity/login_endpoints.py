"""Call the issuer during a login: its metadata, and its token endpoint."""

import base64
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

from django.conf import settings

from service_registry.identity.issuer_client import FetchFailed, Form, discover, fetch_json, get_endpoint

METADATA_SECONDS = 300
MAX_CONCURRENT = 2


class LoginEndpoints:
    """The endpoints of the configured issuer, by discovery at a login.

    Every visitor can begin a login, and an issuer that hangs must not block all threads of the process: at most
    MAX_CONCURRENT logins wait for it, and others fail at once.
    """

    def __init__(self) -> None:
        self._requests = threading.BoundedSemaphore(MAX_CONCURRENT)
        self._cached: tuple[str, dict[str, Any], float] | None = None

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the issuer, from a cache. Raises FetchFailed."""
        issuer, cached = settings.OIDC_ISSUER, self._cached
        if cached and cached[0] == issuer and time.monotonic() < cached[2]:
            return cached[1]
        with self._limit_concurrency():
            metadata = discover(issuer)
        self._cached = issuer, metadata, time.monotonic() + METADATA_SECONDS
        return metadata

    def exchange(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer of the token endpoint (RFC 6749, 4.1.3). Raises FetchFailed."""
        metadata = self.metadata()
        with self._limit_concurrency():
            answer = fetch_json(get_endpoint(metadata, "token_endpoint"), form=authenticate_client(fields, metadata))
        return answer if isinstance(answer, dict) else {}

    @contextmanager
    def _limit_concurrency(self) -> Iterator[None]:
        if not self._requests.acquire(blocking=False):
            raise FetchFailed("other logins are already waiting for it")
        try:
            yield
        finally:
            self._requests.release()


def authenticate_client(fields: Mapping[str, str], metadata: Mapping[str, Any]) -> Form:
    """Add the client's id and secret to a form, or to its Authorization header.

    RFC 6749, 2.3.1. Issuers that do not publish their methods accept the header (OpenID Connect Discovery, 3).
    """
    methods = metadata.get("token_endpoint_auth_methods_supported")
    client_id, secret = settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET
    identified = {**fields, "client_id": client_id}
    if not secret:
        return Form(identified)
    if isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods:
        return Form({**identified, "client_secret": secret})
    basic = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    return Form(dict(fields), f"Basic {basic}")


endpoints = LoginEndpoints()
