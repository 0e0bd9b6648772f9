"""Notice that this process has not run for a while: it was frozen, or had no processor."""

import asyncio
import math

LOOK_SECONDS = 0.1
# A target's answer may have waited this long in the kernel without being read.
PAUSE_SECONDS = 0.5


class Pauses:
    """Knows when the event loop last paused. A failure that was seen across a pause says nothing about its target.

    A timer looks for pauses, and not a task: after a pause it runs before the tasks that see their timeouts then.
    """

    def __init__(self) -> None:
        self.ended_at = -math.inf
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.look(asyncio.get_running_loop().time())

    def stop(self) -> None:
        if self.timer:
            self.timer.cancel()

    def look(self, due_at: float) -> None:
        """Note a pause if this runs later than it was due, in seconds of the loop's clock; look again soon."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - due_at > PAUSE_SECONDS:
            self.ended_at = now
        self.timer = loop.call_later(LOOK_SECONDS, self.look, now + LOOK_SECONDS)

    def since(self, began_at: float) -> bool:
        """Return whether a pause has ended since then."""
        return self.ended_at >= began_at
