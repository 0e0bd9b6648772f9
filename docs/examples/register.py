"""List a process until SIGTERM: REGISTRY=http://... TOKEN_FILE=... python register.py NAME ID HOST PORT"""

import json, os, pathlib, random, signal, sys, threading, urllib.error, urllib.request, uuid

name, instance_id, host, port = sys.argv[1:]
# The incarnation is chosen once at the start of the process: the registry tells it from its predecessor and successor.
key = {"service_name": name, "instance_id": instance_id, "incarnation": str(uuid.uuid4())}
instance = {**key, "host": host, "port": int(port), "ttl_seconds": int(os.environ.get("TTL_SECONDS", "30"))}
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())


def call(operation, body):
    token = pathlib.Path(os.environ["TOKEN_FILE"]).read_text().strip()  # another program renews it there
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{os.environ['REGISTRY']}/registry/{operation}", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read() or "{}")
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused) if "json" in refused.headers["Content-Type"] else {}
    except OSError:  # no answer
        return 0, {}


registered, pause = False, 0
while not stopped.wait(pause):
    status, answer = call("heartbeat", key) if registered else call("register", instance)
    if status in {200, 201}:
        registered, pause = True, answer["lease"]["heartbeat_interval_seconds"] * random.uniform(0.9, 1.1)
    elif status == 409 or answer.get("reason") == "deregistered":  # a successor has the id, or an operator removed it
        sys.exit(f"{instance_id} stops: {answer['code']}")  # without deregistering: the listed instance is not this one
    elif not registered and status in {400, 403}:
        sys.exit(f"{instance_id} may not register: {answer['detail']}")
    else:  # 404: the registry has lost or purged it; otherwise (503, 401, no answer) send the same again
        registered, pause = registered and status != 404, random.uniform(0.5, 1.5)
call("deregister", key)
