"""The end of a watch: nothing is gathered for it while it is sent, and its client has as long as for all else."""

import asyncio
import time

from service_registry.asgi import request as door
from service_registry.asgi.auth import Askers, Asking, Exchange
from service_registry.asgi.flow_control import WRITE_SECONDS, Answers, Outlet
from service_registry.asgi.watch.long_poll import Poll
from service_registry.asgi.watch.sse import Stream
from service_registry.asgi.watch.subscription import Following
from service_registry.caller import Caller
from service_registry.replica.subscribers import EndReason
from service_registry.schemas import WatchQuery
from tests.asgi.clients import GET, Client, silence
from tests.replica.hubs import advance, index, loaded

QUERY = WatchQuery(index=index(1))
CALLER = Caller("someone", frozenset(), frozenset({"view_change"}))


def exchange(client: Client, seconds_left: float) -> Exchange:
    """Of a caller whose token is good for so long, and cannot be judged again."""
    return Exchange(door.Arrived(GET, b"", {}), Asking(CALLER, time.time() + seconds_left), silence, client.send)


def follower(client: Client) -> Following:
    return Following(loaded(1), Askers(), Outlet(client.send, Answers()), QUERY)


def test_nothing_is_gathered_for_a_poll_that_is_answered() -> None:
    async def poll() -> bytes:
        client = Client()
        following = follower(client)
        advance(following.hub, [2, 3])
        await following.begin()
        giving = asyncio.create_task(Poll(exchange(client, 60), QUERY, following).give())
        await client.is_sent_the_end.wait()
        advance(following.hub, [4, 5])
        assert (following.waiter.pending, following.hub.subscribers.present) == ([], set())
        client.takes.set()
        assert await giving == "ok"
        return client.taken

    assert asyncio.run(poll()).startswith(b'{"index":"%b"' % index(3).encode())


def test_last_words_have_as_much_time_as_all_others() -> None:
    """The web server says that the client has left when it has been sent the end."""

    async def stream() -> tuple[bytes, float]:
        client = Client(at_the_end=lambda: following.waiter.end(EndReason.DISCONNECTED))
        following = follower(client)
        await following.begin()
        giving = asyncio.create_task(Stream(exchange(client, -1), following).give())
        await client.is_sent_the_end.wait()
        advance(following.hub, [2])
        assert following.waiter.pending == []
        client.takes.set()
        assert await giving == "ok"
        return client.taken, following.outlet.seconds

    taken, seconds = asyncio.run(stream())
    assert taken.startswith(b"event: expired\n")
    assert seconds == WRITE_SECONDS
