"""Keep a copy of the instances of a registry: REGISTRY=http://127.0.0.1:8000 TOKEN=... python watch.py"""

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request

REGISTRY, HEADERS = os.environ["REGISTRY"], {"Authorization": "Bearer " + os.environ["TOKEN"]}
copy, index = {}, None  # what is listed, by namespace, service and id; where the log has been read to


def get(path, **headers):
    return urllib.request.urlopen(urllib.request.Request(REGISTRY + path, headers=HEADERS | headers), timeout=60)


def key(it):
    return it["namespace"], it["service_name"], it["instance_id"]


def start():  # the list, page after page; the watch goes on from the first page's index
    global copy, index
    listed, after, index = {}, "", None
    while after is not None:
        page = json.load(get("/registry/services?limit=500" + (after and "&after=" + after)))
        listed |= {key(it): it for service in page["services"] for it in service["instances"]}
        index, after = index or page["index"], page["next"]
    copy = listed


def apply(change):  # applying a change that the list had already is harmless
    it = change["instance"]
    if it and it["state"] != "expired":
        copy[key(it)] = it
    elif change["instance_id"]:
        copy.pop(key(change), None)
    print(change["kind"], change["service_name"], change["instance_id"], len(copy), flush=True)


while True:
    pause = random.uniform(0.5, 1.5)  # not all at once after a restart of the registry
    try:
        if index is None:
            start()
        event = {}
        for line in get("/registry/watch", **{"Accept": "text/event-stream", "Last-Event-ID": index}):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            event[name] = value
            if not name and event.get("event") == "change":
                apply(json.loads(event["data"]))
            if not name:  # an empty line ends an event
                index, event = (None if event.get("event") == "resync" else event.get("id", index)), {}
    except urllib.error.HTTPError as refused:
        if refused.code == 410:  # the log does not hold our index any more: start over
            index = None
        elif refused.code in (401, 403):
            raise SystemExit("a new token is needed: " + str(refused)) from refused
        pause += int(refused.headers.get("Retry-After", 0))
    except (OSError, http.client.HTTPException):
        pass  # broken off: go on from our index
    time.sleep(pause)
