"""The registry for WSGI servers. Watching and blocking reads need the ASGI application."""

import os
import threading
import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django_application = get_wsgi_application()

from service_registry import pulse  # noqa: E402 - it imports the models
from service_registry.identity.keys import provider  # noqa: E402

# The process that has started its threads. WSGI servers load the application and fork later, which loses threads.
started_in = 0
starting = threading.Lock()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if started_in != os.getpid():
        start()
    return django_application(environ, start_response)


def start() -> None:
    """Start the pulse and the refresh of signing keys with the first request of this process."""
    global started_in  # noqa: PLW0603
    with starting:
        if started_in != os.getpid():
            provider().start()
            threading.Thread(target=keep_pulsing, name="pulse", daemon=True).start()
            started_in = os.getpid()


def keep_pulsing() -> None:
    while True:
        pulse.pulse()
        time.sleep(pulse.PULSE_SECONDS)
