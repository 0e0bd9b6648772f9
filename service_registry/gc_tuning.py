"""Tune the cyclic garbage collector for processes that keep many objects for good."""

import gc

# The youngest generation is collected after 20,000 allocated objects, the next older after 5 collections of it, the
# oldest after 2 of that. A cancelled request leaves a few kilobytes in cycles, so that at most some ten megabytes wait.
THRESHOLDS = 20_000, 5, 2


def freeze_heap() -> None:
    """Exclude present objects from garbage collection; collect later ones less often.

    Call it when few of the present objects will become garbage: after a process has started, and not when it loads its
    replica again, while many clients disconnect.

    With its default threshold of 700 objects, of which one array request allocates thousands, the collector took a
    third of the time of an array request, as it visited the whole replica now and then. The second collection leaves
    next to nothing in the oldest generation. Python collects that generation once the objects that are new to it exceed
    a quarter of those that the last full collection left, so that later full collections come soon enough.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
    gc.set_threshold(*THRESHOLDS)
