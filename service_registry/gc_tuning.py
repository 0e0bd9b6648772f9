"""Python's collector of cycles, which would look again and again at what stays to the end."""

import gc

# Objects made and not freed until the youngest are looked at; and how often that is until all are. A broken-off request
# leaves a few kilobytes in cycles, so that some ten megabytes wait for it at most.
YOUNGEST, BETWEEN, ALL = 20_000, 5, 2


def freeze_heap() -> None:
    """Leave out what is there now, for good: called where little of it will ever be garbage, and so not when a process
    starts over, while many clients take their leave.

    With its defaults the collector looks each 700 objects, of which an array makes thousands, and from time to time at
    the whole replica: that was a third of an array's time. The second look finds next to nothing, so that later a
    quarter more than it found, which is what the collector waits for, is soon there.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
    gc.set_threshold(YOUNGEST, BETWEEN, ALL)
