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

from service_registry import gc_tuning, pulse  # noqa: E402 - what follows needs Django's registry of models
from service_registry.api import health  # noqa: E402
from service_registry.asgi import livez  # noqa: E402
from service_registry.asgi.app import LiveDoors  # noqa: E402
from service_registry.asgi.django_bridge import Bridge  # noqa: E402
from service_registry.asgi.writes.bulk import Arrays  # noqa: E402
from service_registry.asgi.writes.singles import Singles  # noqa: E402
from service_registry.http import memory_budget  # noqa: E402
from service_registry.identity.keys import provider  # noqa: E402

threads = ThreadPoolExecutor(settings.WEB_THREADS, thread_name_prefix="web")
web_application = LiveDoors()
under_way = web_application.limits.answers
singles, arrays = Singles(threads), Arrays(threads, under_way)
health.requirements["replica"] = web_application.check
memory_budget.checks.append(web_application.has_room)


async def ahead(scope: HTTPScope, body: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable) -> bool:
    """What is answered on the event loop."""
    for each in (singles, arrays, web_application):
        if await each(scope, body, receive, send):
            return True
    return False


bridge = Bridge(django_application, threads, settings.DATA_UPLOAD_MAX_MEMORY_SIZE, ahead, deliver=under_way.pass_on)


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "http" and scope["path"] == livez.PATH:
        await livez.answer(scope, send)
    elif scope["type"] == "http":
        await bridge(scope, receive, send)
    elif scope["type"] == "lifespan":
        await live(receive, send)


async def live(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The lifespan protocol: what a first request would have to wait for is done before there is one."""
    await receive()
    get_resolver().url_patterns  # noqa: B018 - loads the URLconf and all it imports, 600 ms
    provider().start()
    web_application.open()
    gc_tuning.freeze_heap()
    keeping = asyncio.create_task(keep_pulsing())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    keeping.cancel()
    await web_application.close()
    await send({"type": "lifespan.shutdown.complete"})


async def keep_pulsing() -> None:
    """Pulse through the pool of the requests: a process whose requests are stuck must not say that it hears."""
    loop = asyncio.get_running_loop()
    while True:
        await loop.run_in_executor(threads, pulse.pulse)
        await asyncio.sleep(pulse.PULSE_SECONDS)
