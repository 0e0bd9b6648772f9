"""Keep a copy of the instances of a registry: REGISTRY=http://127.0.0.1:8000 TOKEN_FILE=token python watch.py"""

import http.client, json, operator, os, pathlib, random, time, urllib.request

registry, client = os.environ["REGISTRY"] + "/registry", urllib.request.build_opener()
key = operator.itemgetter("namespace", "service_name", "instance_id")
copy, index = {}, None  # the listed instances; the index of the last change that was applied

while True:
    try:
        token = pathlib.Path(os.environ["TOKEN_FILE"]).read_text().strip()  # another program renews it there
        client.addheaders = [("Accept", "text/event-stream"), ("Authorization", "Bearer " + token)]
        if index is None:  # read the list; the watch begins at the first page's index
            pages = [json.load(client.open(registry + "/services?limit=500", timeout=30))]
            while after := pages[-1]["next"]:
                pages.append(json.load(client.open(registry + "/services?limit=500&after=" + after, timeout=30)))
            copy = {key(it): it for page in pages for service in page["services"] for it in service["instances"]}
            index = pages[0]["index"]
        event = {}
        for line in client.open(registry + "/watch?index=" + index, timeout=30):
            name, _, event[name] = line.decode().rstrip("\n").partition(": ")
            if not name and event["event"] == "change":  # the list may have it already: applying it twice is harmless
                change = json.loads(event["data"])
                copy.pop(key(change), None)
                if change["instance"] and change["instance"]["state"] != "expired":
                    copy[key(change)] = change["instance"]
                print(change["kind"], change["service_name"], change["instance_id"], len(copy), flush=True)
            if not name:  # an empty line ends an event; `resync` means: read the list again
                index, event = (None if event["event"] == "resync" else event.get("id", index)), {}
    except (OSError, http.client.HTTPException) as broken:  # resume from the index, unless the log has lost it (410)
        print("#", broken, flush=True)
        index = None if getattr(broken, "code", 0) == 410 else index
        time.sleep(int(getattr(broken, "headers", {}).get("Retry-After", 0)))
    time.sleep(random.uniform(0.5, 1.5))  # so that clients do not all return at once
