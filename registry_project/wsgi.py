"""The same application for WSGI servers. What needs an event loop (watching, blocking reads) is not to be had here."""

import os
import threading
import time
from collections.abc import Iterable

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django_application = get_wsgi_application()

from service_registry import pulse  # noqa: E402 - what follows needs Django's registry of models
from service_registry.asgi.django_bridge import Environ, StartResponse, without_charset  # noqa: E402
from service_registry.identity.keys import provider  # noqa: E402

# The process that has its threads already. WSGI servers load the application and fork then, and threads do not follow.
started_in = 0
starting = threading.Lock()


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    if started_in != os.getpid():
        start()
    if "CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = without_charset(environ["CONTENT_TYPE"])
    return django_application(environ, start_response)


def start() -> None:
    """Begin this process's pulse and the refresh of its keys, with whichever of its first requests comes first."""
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
