"""A process that watches as a careful client does, and writes down what it was told.

    python -m tests.live.watcher stream|poll SEED RESULT PORT [PORT ...]

It begins at a random moment with the list, goes on from its index, leaves now and then, and resumes at another port. It
ends when the instance `LAST` of the service `the-end` is registered. RESULT is then a JSON object: `began_at` and
`ids`, those of the changes in the order in which they came; `copy`, its copy of the list; `starts`, how often it had to
start over.
"""

import http.client
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.live.watching import BROKEN, Refused, Stream

LAST = ("the-end", "the-end")
LISTED = {"live", "protected"}


class Finished(Exception):
    """All there is has come."""


class Watcher:
    def __init__(self, way: str, seed: int, ports: list[int]) -> None:
        self.random = random.Random(seed)
        self.way = way
        self.ports = ports
        self.bearer = os.environ["WATCHER_TOKEN"]
        self.starts = 0
        self.index = ""
        self.began_at = 0
        self.ids: list[int] = []
        self.copy: dict[str, Any] = {}

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.random.choice(self.ports), timeout=60)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.bearer}"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise Refused(answer.status, document)
        return document

    def start(self) -> None:
        """Read the list; its index is where the watch begins."""
        page = self.get("/registry/services?limit=500")
        self.starts += 1
        self.index, self.ids = page["index"], []
        self.began_at = number(self.index)
        self.copy = {}
        while True:
            for service in page["services"]:
                self.copy |= {key(instance): instance for instance in service["instances"]}
            if page["next"] is None:
                return
            page = self.get(f"/registry/services?limit=500&after={page['next']}")

    def take(self, change: Any) -> None:
        self.ids.append(number(change["index"]))
        self.index = change["index"]
        if change["instance"] and change["instance"]["state"] in LISTED:
            self.copy[key(change["instance"])] = change["instance"]
        elif change["instance_id"]:
            self.copy.pop(key(change), None)
        if (change["service_name"], change["instance_id"]) == LAST:
            raise Finished

    def follow(self) -> None:
        stays_for = self.random.randint(200, 5000)
        if self.way == "poll":
            return self.poll(stays_for)
        with Stream(self.random.choice(self.ports), self.bearer, last_event_id=self.index) as stream:
            for event in stream.events():
                if event.kind == "change":
                    self.take(event.data)
                    stays_for -= 1
                if event.kind == "resync":
                    raise Refused(410, event.data)
                if stays_for == 0:
                    return None
        return None

    def poll(self, stays_for: int) -> None:
        while stays_for > 0:
            answer = self.get(f"/registry/watch?index={self.index}&wait=5s")
            for change in answer["changes"]:
                self.take(change)
                stays_for -= 1
            self.index = answer["index"]

    def watch(self) -> None:
        """Until the end, through whatever happens to the processes that are asked."""
        while True:
            try:
                if not self.index:
                    self.start()
                self.follow()
            except Finished:
                return
            except Refused as refused:
                if refused.status == 410:
                    self.index = ""
                time.sleep(0.1)
            except BROKEN:
                time.sleep(0.1)


def key(document: Any) -> str:
    return "/".join((document["namespace"], document["service_name"], document["instance_id"]))


def number(index: str) -> int:
    return int(index.partition("-")[2])


def main(way: str, seed: str, result: str, *ports: str) -> None:
    watcher = Watcher(way, int(seed), list(map(int, ports)))
    time.sleep(watcher.random.uniform(0, 3))
    watcher.watch()
    found = {"starts": watcher.starts, "began_at": watcher.began_at, "ids": watcher.ids, "copy": watcher.copy}
    part = Path(f"{result}.part")
    part.write_text(json.dumps(found))
    part.rename(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
