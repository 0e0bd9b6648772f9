"""Fixtures: an issuer, and key providers for it."""

import threading
from collections.abc import Callable, Iterator

import pytest

from service_registry.identity.issuer_client import Limits
from service_registry.identity.key_provider import KeyProvider, Schedule
from tests.identity.issuer_server import Issuer

MakeProvider = Callable[..., KeyProvider]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        serving = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        serving.start()
        yield server
        server.released.set()
        server.shutdown()
        serving.join()


@pytest.fixture
def make_provider() -> Iterator[MakeProvider]:
    """Return a function that creates key providers, which stop with the test.

    With `stored` they use the database.
    """
    made: list[KeyProvider] = []

    def make(
        issuer: Issuer, *, stored: bool = False, jwks_uri: str = "", max_age_seconds: float = 100, **times: float
    ) -> KeyProvider:
        limits = Limits(connect_seconds=1, total_seconds=1)
        schedule = Schedule(**{"first_retry_seconds": 0.05, **times})
        made.append(
            KeyProvider(
                issuer.url,
                jwks_uri=jwks_uri,
                max_age_seconds=max_age_seconds,
                schedule=schedule,
                limits=limits,
                stored=stored,
            )
        )
        return made[-1].start()

    yield make
    for provider in made:
        provider.stop()
