import threading
from collections.abc import Callable, Iterator

import pytest

from service_registry.identity.fetching import Limits
from service_registry.identity.keys import KeyProvider, Pace
from tests.identity.issuing import Issuer

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
def provider_of() -> Iterator[MakeProvider]:
    """Make providers that end with the test. Times are seconds; without `stored` nothing goes to the database."""
    made: list[KeyProvider] = []

    def make(
        issuer: Issuer, *, stored: bool = False, jwks_uri: str = "", max_age_seconds: float = 100, **pace: float
    ) -> KeyProvider:
        limits = Limits(connect_seconds=1, total_seconds=1)
        times = Pace(**{"first_retry_seconds": 0.05, **pace})
        made.append(
            KeyProvider(
                issuer.url, jwks_uri=jwks_uri, max_age_seconds=max_age_seconds, pace=times, limits=limits, stored=stored
            )
        )
        return made[-1].start()

    yield make
    for provider in made:
        provider.stop()
