"""Keep a copy of the instances of a registry: REGISTRY=http://127.0.0.1:8000 TOKEN_FILE=token python watch.py"""

import http.client, json, operator, os, pathlib, random, time, urllib.request

registry, client = os.environ["REGISTRY"] + "/registry", urllib.request.build_opener()
key = operator.itemgetter("namespace", "service_name", "instance_id")
copy, index = {}, None  # what is listed; where the log has been read to

while True:
    try:
        token = pathlib.Path(os.environ["TOKEN_FILE"]).read_text().strip()  # whoever renews it writes it there
        client.addheaders = [("Accept", "text/event-stream"), ("Authorization", "Bearer " + token)]
        if index is None:  # the list, page after page; the watch goes on from the first page's index
            pages = [json.load(client.open(registry + "/services?limit=500", timeout=30))]
            while after := pages[-1]["next"]:
                pages.append(json.load(client.open(registry + "/services?limit=500&after=" + after, timeout=30)))
            copy = {key(it): it for page in pages for service in page["services"] for it in service["instances"]}
            index = pages[0]["index"]
        event = {}
        for line in client.open(registry + "/watch?index=" + index, timeout=30):
            name, _, event[name] = line.decode().rstrip("\n").partition(": ")
            if not name and event["event"] == "change":  # applying one that the list had already is harmless
                change = json.loads(event["data"])
                copy.pop(key(change), None)
                if change["instance"] and change["instance"]["state"] != "expired":
                    copy[key(change)] = change["instance"]
                print(change["kind"], change["service_name"], change["instance_id"], len(copy), flush=True)
            if not name:  # an empty line ends an event; after `resync` all begins anew
                index, event = (None if event["event"] == "resync" else event.get("id", index)), {}
    except (OSError, http.client.HTTPException) as broken:  # go on from our index, where the log still holds it
        print("#", broken, flush=True)
        index = None if getattr(broken, "code", 0) == 410 else index
        time.sleep(int(getattr(broken, "headers", {}).get("Retry-After", 0)))
    time.sleep(random.uniform(0.5, 1.5))  # not all at once after a restart of the registry
