"""The web server's application: the asynchronous doors, Django behind them on a few threads, and this process's pulse
on the same ones."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django_application = get_wsgi_application()

from registry_project import liveness, pulsing  # noqa: E402 - what follows needs Django's registry of models
from registry_project.bridge import Bridge  # noqa: E402
from service_registry.api import health, room  # noqa: E402
from service_registry.identity.keys import provider  # noqa: E402
from service_registry.live import collector  # noqa: E402
from service_registry.live.arrays import Arrays  # noqa: E402
from service_registry.live.doors import LiveDoors  # noqa: E402
from service_registry.live.singles import Singles  # noqa: E402

threads = ThreadPoolExecutor(settings.WEB_THREADS, thread_name_prefix="web")
live_doors = LiveDoors()
under_way = live_doors.limits.answers
singles, arrays = Singles(threads), Arrays(threads, under_way)
health.requirements["replica"] = live_doors.check
room.checks.append(live_doors.has_room)


async def ahead(scope: HTTPScope, body: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable) -> bool:
    """What is answered on the event loop."""
    for each in (singles, arrays, live_doors):
        if await each(scope, body, receive, send):
            return True
    return False


bridge = Bridge(django_application, threads, settings.DATA_UPLOAD_MAX_MEMORY_SIZE, ahead, deliver=under_way.pass_on)


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "http" and scope["path"] == liveness.PATH:
        await liveness.answer(scope, send)
    elif scope["type"] == "http":
        await bridge(scope, receive, send)
    elif scope["type"] == "lifespan":
        await live(receive, send)


async def live(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The lifespan protocol: what a first request would have to wait for is done before there is one."""
    await receive()
    get_resolver().url_patterns  # noqa: B018 - loads the URLconf and all it imports, 600 ms
    provider().start()
    live_doors.open()
    collector.spare()
    keeping = asyncio.create_task(keep_pulsing())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    keeping.cancel()
    await live_doors.close()
    await send({"type": "lifespan.shutdown.complete"})


async def keep_pulsing() -> None:
    """Pulse through the pool of the requests: a process whose requests are stuck must not say that it hears."""
    loop = asyncio.get_running_loop()
    while True:
        await loop.run_in_executor(threads, pulsing.pulse)
        await asyncio.sleep(pulsing.PULSE_SECONDS)
