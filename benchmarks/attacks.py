"""`python -m benchmarks.attacks`: heartbeats of a caller while anonymous clients attack, on loopback.

Each attack runs for some seconds in a separate process, from addresses of 127.0.0.0/8 other than the caller's. Printed
are the p99 of heartbeats before and meanwhile, the memory of the web process before, at most and afterwards, and how
soon an instance with a TTL of 5 s, which sends nothing, is off the list.
"""

import argparse
import contextlib
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.memory import read_resident_bytes
from benchmarks.registry import Registry
from benchmarks.requests import Fleet, exchange, make_registration, register_fleet

CALLERS = 4
BEFORE_SECONDS = 4
ATTACK_SECONDS = 12
AFTER_SECONDS = 5
HOST = b"Host: 127.0.0.1\r\n"


def connect(port: int, number: int) -> socket.socket:
    client = socket.socket()
    client.bind((f"127.0.1.{1 + number % 200}", 0))
    client.settimeout(2)
    client.connect(("127.0.0.1", port))
    return client


def send_until(port: int, ends_at: float, head: bytes, part: bytes, most: int) -> None:
    """Send a head, and then parts of up to `most` bytes in all, again on a new connection when it is closed."""
    while time.monotonic() < ends_at:
        with contextlib.suppress(OSError), connect(port, 0) as client:
            client.sendall(head)
            for _ in range(most // len(part)):
                client.sendall(part)
                if time.monotonic() > ends_at:
                    return


def send_long_header(port: int, ends_at: float) -> None:
    send_until(port, ends_at, b"GET /livez HTTP/1.1\r\n" + HOST + b"X-Long: ", b"x" * 65536, 50_000_000)


def send_many_headers(port: int, ends_at: float) -> None:
    send_until(port, ends_at, b"GET /livez HTTP/1.1\r\n" + HOST, b"X-Many: 1234567890\r\n" * 4096, 100_000_000)


def hold(port: int, ends_at: float, count: int, sent: bytes) -> None:
    """Open `count` connections, send the same on each, and keep them."""
    clients = []
    for number in range(count):
        with contextlib.suppress(OSError):
            clients.append(connect(port, number))
            clients[-1].sendall(sent)
    time.sleep(max(ends_at - time.monotonic(), 0))


def stay_silent(port: int, ends_at: float) -> None:
    hold(port, ends_at, 2000, b"")


def begin_requests(port: int, ends_at: float) -> None:
    hold(port, ends_at, 2000, b"GET /registry/services HTTP/1.1\r\n" + HOST + b"X-Slow: ")


def pipeline_unread(port: int, ends_at: float) -> None:
    hold(port, ends_at, 200, (b"GET /registry/services HTTP/1.1\r\n" + HOST + b"\r\n") * 1000)


def send_bodies(port: int, ends_at: float) -> None:
    head = b"PUT /registry/services/web/owners HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    hold(port, ends_at, 500, head + b"Content-Length: 1000000\r\n\r\n" + b" " * 999_999)


def leave_static_files_unread(port: int, ends_at: float) -> None:
    path = b"/static/admin/js/vendor/jquery/jquery.js"
    hold(port, ends_at, 400, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")


def guess_passwords(port: int, ends_at: float) -> None:
    body = b"username=admin&password=guess"
    head = b"POST /admin/login/ HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
    head += b"Cookie: csrftoken=" + b"a" * 32 + b"\r\nX-CSRFToken: " + b"a" * 32 + b"\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    number = 0
    while time.monotonic() < ends_at:
        number += 1
        with contextlib.suppress(OSError), connect(port, number) as client:
            client.sendall(request)
        time.sleep(0.02)


ATTACKS: dict[str, Callable[[int, float], None]] = {
    "a header of 50 MB": send_long_header,
    "100 MB of headers": send_many_headers,
    "2,000 silent connections": stay_silent,
    "2,000 slow requests": begin_requests,
    "200 pipelines of 1,000, unread": pipeline_unread,
    "500 bodies of 1 MB without a token": send_bodies,
    "400 unread static files": leave_static_files_unread,
    "50 passwords a second": guess_passwords,
}


def read_memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return read_resident_bytes(pid) / 1e6


class Memory(threading.Thread):
    """Reads the memory of a process all the time, and keeps the most."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.before = self.most = read_memory(pid)
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.most = max(self.most, read_memory(self.pid))


def wait_for_expiry(registry: Registry, name: str, ended: list[float]) -> None:
    """Register an instance that sends no heartbeats, and note after how many seconds it is off the list."""
    port, requests = registry.ports[0], registry.requests
    body = make_registration(0) | {"instance_id": name, "ttl_seconds": 5}
    status, _headers, text = exchange(port, requests.post("/registry/register", body, 0))
    if status != 201:
        raise RuntimeError(f"not registered: {text[:300]!r}")
    began = time.monotonic()
    while time.monotonic() < began + 60:
        _status, _headers, text = exchange(port, requests.get(f"/registry/services/{body['service_name']}"))
        if name.encode() not in text:
            ended.append(time.monotonic() - began)
            return
        time.sleep(0.1)


def measure(registry: Registry, name: str, attack: Callable[[int, float], None]) -> str:
    heartbeat = next(kind for kind in registry.kinds() if kind.name == "heartbeat")
    port, memory = registry.ports[0], Memory(registry.webs[0].pid)
    before = registry.measure(heartbeat, CALLERS, BEFORE_SECONDS).load
    memory.start()
    expired: list[float] = []
    watching = threading.Thread(target=wait_for_expiry, args=(registry, f"alone-{time.time_ns()}", expired))
    attacking = multiprocessing.get_context("spawn").Process(
        target=attack, args=(port, time.monotonic() + ATTACK_SECONDS), daemon=True
    )
    attacking.start()
    watching.start()
    during = registry.measure(heartbeat, CALLERS, ATTACK_SECONDS - 1).load
    attacking.join(ATTACK_SECONDS)
    attacking.kill()
    watching.join(60)
    memory.ended.set()
    time.sleep(AFTER_SECONDS)
    p99 = before.percentile(0.99), during.percentile(0.99)
    off = f"{expired[0]:.1f}" if expired else "never"
    after = read_memory(memory.pid)
    return (
        f"{name:36} {p99[0]:7.1f} {p99[1]:7.1f} {p99[1] / p99[0]:6.2f}"
        f"  {memory.before:7.0f} {memory.most:7.0f} {after:7.0f}  {off:>7}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of the names of attacks; all by default")
    options = parser.parse_args()
    chosen = {
        name: attack
        for name, attack in ATTACKS.items()
        if not options.only or any(part in name for part in options.only)
    }
    if not chosen:
        sys.exit(f"There is no such attack. The attacks: {', '.join(ATTACKS)}.")
    with tempfile.TemporaryDirectory(prefix="registry-attacks-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        with Registry(directory / "registry", Fleet(1000)) as registry:
            registry.environment["REGISTRY_PASSWORD_LOGIN"] = "true"
            registry.start_web(1, threads=2)
            register_fleet(registry.ports[0], registry.requests)
            print(
                f"{'':36} {'p99 ms':>7} {'attack':>7} {'ratio':>6}  {'MB':>7} {'most':>7} {'after':>7}  {'off, s':>7}"
            )
            for name, attack in chosen.items():
                print(measure(registry, name, attack), flush=True)


if __name__ == "__main__":
    main()
