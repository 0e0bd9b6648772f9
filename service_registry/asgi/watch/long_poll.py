"""A long poll: the next changes in one response, or none when the wait is over.

The contract: with an index the poll waits for a change after it, for `wait` at most, and answers with the index up to
which it has looked; without an index it answers at once.
"""

from collections.abc import Sequence

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.headers import replica_headers
from service_registry.asgi.request import ClientDisconnected, Request
from service_registry.asgi.waiting import now, with_jitter
from service_registry.asgi.watch.subscription import Subscription
from service_registry.changelog import CHANGES_PER_PAGE
from service_registry.exceptions import IndexGone
from service_registry.http.callers import Identity
from service_registry.http.responses import Response
from service_registry.permissions import WATCH
from service_registry.replica.events import ChangeEvent
from service_registry.replica.subscribers import EndReason
from service_registry.schemas import WatchQuery


async def long_poll(
    request: Request, query: WatchQuery, subscription: Subscription, authenticator: Authenticator
) -> Response:
    """Return the next changes, after a wait for some when the query has an index.

    Raises IndexGone, TooBusy, ClientDisconnected, and as `authenticate`.
    """
    events = await next_events(request, query, subscription, authenticator)
    reason = subscription.subscriber.end_reason
    if reason is EndReason.RESYNC:
        raise IndexGone
    if reason is EndReason.DISCONNECTED:
        raise ClientDisconnected
    identity = await authenticator.authenticate(request, WATCH)
    body = render_changes(subscription, events, identity)
    headers = replica_headers(subscription.hub, subscription.replica.index)
    # Later changes are not for this poll, however long its client takes to read the response.
    subscription.close()
    return Response(200, body, headers)


async def next_events(
    request: Request, query: WatchQuery, subscription: Subscription, authenticator: Authenticator
) -> Sequence[ChangeEvent]:
    """Return the next events, none when the wait is over.

    The caller is judged again when keys or grants change, and once a minute. Raises as `authenticate`.
    """
    events = await subscription.next(CHANGES_PER_PAGE)
    if query.index:
        until = now() + with_jitter(query.wait)
        while not events and not subscription.subscriber.end_reason and now() < until:
            identity = await authenticator.authenticate(request, WATCH)
            await subscription.subscriber.wait(min(until - now(), identity.seconds_to_judgement))
            events = await subscription.next(CHANGES_PER_PAGE)
    return events


def render_changes(subscription: Subscription, events: Sequence[ChangeEvent], identity: Identity) -> bytes:
    """Return the body with the changes. Raises TooBusy.

    What has been read of the log is in memory for this poll, which therefore cannot wait.
    """
    documents = [event.document(identity.caller.may_read_actors(event.change.owners)) for event in events]
    subscription.writer.responses.require_capacity(sum(map(len, documents)))
    return b'{"index":"%b","changes":[%b]}' % (subscription.index.encode(), b",".join(documents))
