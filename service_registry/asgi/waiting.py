"""Waiting for changes: jitter, and the end of a wait when the client disconnects."""

import random
import time

from asgiref.typing import ASGIReceiveCallable

from service_registry.replica.subscribers import EndReason, Subscriber

now = time.monotonic


def with_jitter(seconds: float) -> float:
    """Return up to a sixteenth more than the given time.

    Callers that began to wait together do not come back together.
    """
    return seconds + random.uniform(0, seconds / 16)  # noqa: S311 (jitter)


async def wait_for_disconnect(receive: ASGIReceiveCallable) -> None:
    """Wait until the client closes its connection. The request's body must have been received."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def end_on_disconnect(receive: ASGIReceiveCallable, subscriber: Subscriber) -> None:
    """End the subscription when the client closes its connection."""
    await wait_for_disconnect(receive)
    subscriber.end(EndReason.DISCONNECTED)
