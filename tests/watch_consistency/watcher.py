"""A process that watches as a careful client does, and writes down what it was told.

    python -m tests.watch_consistency.watcher stream|poll SEED RESULT LAST PORT [PORT ...]

It begins with the list, goes on from its index, leaves now and then, and resumes at another port. At some of these
moments it reads the list again and keeps a second copy from there on, until the two must be the same. It ends when the
instance LAST of the service `the-end` is registered. RESULT is then a JSON object: `began_at` and `ids`, those of the
changes in the order in which they came; `copy`, its copy of the list; how many `comparisons` of its two copies there
were, and how many `differences`; `resumes`, and `starts`, how often it had to start over.
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
# Of the moments at which it leaves, those at which it reads the list again.
COMPARES = 0.3


class Finished(Exception):
    """All there is has come."""


class Copy:
    """The list as it was read from the index on, and what followed."""

    def __init__(self, index: str) -> None:
        self.index = index
        self.began_at = number(index)
        self.instances: dict[str, Any] = {}

    def take(self, change: Any) -> None:
        self.index = change["index"]
        if change["instance"] and change["instance"]["state"] in LISTED:
            self.instances[key(change["instance"])] = change["instance"]
        elif change["instance_id"]:
            self.instances.pop(key(change), None)


class Watcher:
    def __init__(self, way: str, seed: int, last: str, ports: list[int]) -> None:
        self.random = random.Random(seed)
        self.way = way
        self.last = ("the-end", last)
        self.ports = ports
        self.bearer = os.environ["WATCHER_TOKEN"]
        self.starts = self.resumes = self.comparisons = self.differences = 0
        self.ids: list[int] = []
        self.copy: Copy | None = None
        self.second: Copy | None = None
        self.same_from = 0

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.random.choice(self.ports), timeout=60)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.bearer}"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise WatchRefused(answer.status, document)
        return document

    def list(self) -> Copy:
        """All pages; the first one's index is where the watch begins."""
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
        """Pages may hold what came after the first one's index: the copies agree once all that was read has come."""
        second = self.list()
        self.same_from = number(self.get("/registry/services?name=none")["index"])
        self.second = second

    def take(self, copy: Copy, change: Any) -> None:
        pk = number(change["index"])
        self.ids.append(pk)
        copy.take(change)
        if self.second:
            self.take_second(copy, self.second, pk, change)
        if (change["service_name"], change["instance_id"]) == self.last:
            raise Finished

    def take_second(self, copy: Copy, second: Copy, pk: int, change: Any) -> None:
        if pk > second.began_at:
            second.take(change)
        if pk >= self.same_from:
            self.comparisons += 1
            self.differences += copy.instances != second.instances
            self.second = None

    def follow(self, copy: Copy) -> None:
        stays_for = self.random.randint(200, 5000)
        if self.way == "poll":
            return self.poll(copy, stays_for)
        with EventStream(self.random.choice(self.ports), self.bearer, last_event_id=copy.index) as stream:
            for event in stream.events():
                if event.kind == "change":
                    self.take(copy, event.data)
                    stays_for -= 1
                if event.kind == "resync":
                    raise WatchRefused(410, event.data)
                if stays_for == 0:
                    return None
        return None

    def poll(self, copy: Copy, stays_for: int) -> None:
        while stays_for > 0:
            answer = self.get(f"/registry/watch?index={copy.index}&wait=5s")
            for change in answer["changes"]:
                self.take(copy, change)
                stays_for -= 1
            copy.index = answer["index"]

    def watch(self) -> None:
        """Until the end, through whatever happens to the processes that are asked."""
        while True:
            try:
                self.follow(self.copy or self.start())
                if not self.second and self.random.random() < COMPARES:
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


def main(way: str, seed: str, result: str, last: str, *ports: str) -> None:
    watcher = Watcher(way, int(seed), last, list(map(int, ports)))
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
