"""A process that watches as a correct client does, and records the changes that it receives.

    python -m tests.watch_consistency.watcher stream|poll SEED RESULT LAST PORT [PORT ...]

It reads the list, watches from its index, closes the watch now and then, and resumes at another port. At some of these
moments it reads the list again and keeps a second copy from there on, until the two must be equal. It ends when the
instance LAST of the service `the-end` is registered. RESULT is then a JSON object: `began_at` and `ids` of the changes
in the order of their arrival; `copy` of the list; the number of `comparisons` of its two copies, and of `differences`;
`resumes`, and `starts`, the number of lists that it began with.
"""

import http.client
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.server.event_stream import CONNECTION_ERRORS, EventStream, WatchRefused

LISTED = {"live", "protected"}
# The share of resumes at which it reads the list again.
COMPARISON_SHARE = 0.3


class Finished(Exception):
    """The last change has arrived."""


class Copy:
    """A copy of the list, with the changes since its index applied."""

    def __init__(self, index: str) -> None:
        self.index = index
        self.began_at = number(index)
        self.instances: dict[str, Any] = {}

    def apply(self, change: Any) -> None:
        self.index = change["index"]
        if change["instance"] and change["instance"]["state"] in LISTED:
            self.instances[key(change["instance"])] = change["instance"]
        elif change["instance_id"]:
            self.instances.pop(key(change), None)


class Watcher:
    def __init__(self, mode: str, seed: int, last: str, ports: list[int]) -> None:
        self.random = random.Random(seed)
        self.mode = mode
        self.last = ("the-end", last)
        self.ports = ports
        self.bearer = os.environ["WATCHER_TOKEN"]
        self.starts = self.resumes = self.comparisons = self.differences = 0
        self.ids: list[int] = []
        self.copy: Copy | None = None
        self.second: Copy | None = None
        self.same_from = self.read_at = 0

    def get(self, path: str) -> Any:
        """Return the document. Keeps the X-Registry-Index of the response in `read_at`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.random.choice(self.ports), timeout=60)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.bearer}"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise WatchRefused(answer.status, document)
        self.read_at = number(answer.headers["X-Registry-Index"])
        return document

    def list(self) -> Copy:
        """Read all pages; the watch begins at the index of the first one."""
        page = self.get("/registry/services?limit=500")
        copy = Copy(page["index"])
        while True:
            for service in page["services"]:
                copy.instances |= {key(instance): instance for instance in service["instances"]}
            if page["next"] is None:
                return copy
            page = self.get(f"/registry/services?limit=500&after={page['next']}")

    def start(self) -> Copy:
        self.copy, self.second, self.ids = self.list(), None, []
        self.starts += 1
        return self.copy

    def begin_second(self) -> None:
        """Pages may contain changes after the first page's index: the copies are equal once those have arrived.

        A page comes from the memory of any process, or from the database, which may be ahead of all of them. The
        database answers requests for one instance: its index is not older than any page.
        """
        second = self.list()
        if self.copy is None or second.began_at < number(self.copy.index):
            return  # of a process that is behind this watcher, which does not get the changes in between again
        instance = self.random.choice(list(second.instances.values()))
        self.get(f"/registry/instance/{instance['service_name']}/{instance['instance_id']}")
        self.same_from = self.read_at
        self.second = second

    def receive(self, copy: Copy, change: Any) -> None:
        pk = number(change["index"])
        self.ids.append(pk)
        copy.apply(change)
        if self.second:
            self.receive_for_second(copy, self.second, pk, change)
        if (change["service_name"], change["instance_id"]) == self.last:
            raise Finished

    def receive_for_second(self, copy: Copy, second: Copy, pk: int, change: Any) -> None:
        if pk > second.began_at:
            second.apply(change)
        if pk >= self.same_from:
            self.comparisons += 1
            if copy.instances != second.instances:
                self.differences += 1
                keys = copy.instances.keys() | second.instances.keys()
                unequal = {key for key in keys if copy.instances.get(key) != second.instances.get(key)}
                shown = {key: (copy.instances.get(key), second.instances.get(key)) for key in sorted(unequal)[:3]}
                print(f"at {pk}, begun at {second.began_at}, compared from {self.same_from}: {shown}", flush=True)
            self.second = None

    def follow(self, copy: Copy) -> None:
        remaining = self.random.randint(200, 5000)
        if self.mode == "poll":
            return self.poll(copy, remaining)
        with EventStream(self.random.choice(self.ports), self.bearer, last_event_id=copy.index) as stream:
            for event in stream.events():
                if event.kind == "change":
                    self.receive(copy, event.data)
                    remaining -= 1
                if event.kind == "resync":
                    raise WatchRefused(410, event.data)
                if remaining == 0:
                    return None
        return None

    def poll(self, copy: Copy, remaining: int) -> None:
        while remaining > 0:
            answer = self.get(f"/registry/watch?index={copy.index}&wait=5s")
            for change in answer["changes"]:
                self.receive(copy, change)
                remaining -= 1
            copy.index = answer["index"]

    def watch(self) -> None:
        """Watch until the last change, and resume after every failure."""
        while True:
            try:
                self.follow(self.copy or self.start())
                if not self.second and self.random.random() < COMPARISON_SHARE:
                    self.begin_second()
            except Finished:
                return
            except WatchRefused as refused:
                if refused.status == 410:
                    self.copy = None
                time.sleep(0.1)
            except CONNECTION_ERRORS:
                time.sleep(0.1)
            self.resumes += 1


def key(document: Any) -> str:
    return "/".join((document["namespace"], document["service_name"], document["instance_id"]))


def number(index: str) -> int:
    return int(index.partition("-")[2])


def main(mode: str, seed: str, result: str, last: str, *ports: str) -> None:
    watcher = Watcher(mode, int(seed), last, list(map(int, ports)))
    time.sleep(watcher.random.uniform(0, 3))
    watcher.watch()
    assert watcher.copy, "it has ended, and so had begun"
    names = ("ids", "starts", "resumes", "comparisons", "differences")
    found = {name: getattr(watcher, name) for name in names}
    found |= {"began_at": watcher.copy.began_at, "copy": watcher.copy.instances}
    part = Path(f"{result}.part")
    part.write_text(json.dumps(found))
    part.rename(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
