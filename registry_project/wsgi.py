"""The WSGI application of the registry.

Watches and blocking reads need an event loop: only `registry_project.asgi` serves them.
"""

import os
import threading
import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django_application = get_wsgi_application()

from service_registry import checks, pulse  # noqa: E402 - they import the models
from service_registry.http.content_type import readable_content_type  # noqa: E402
from service_registry.identity.key_provider import get_key_provider  # noqa: E402

checks.require_valid_settings()

# The process in which the threads run. WSGI servers load the application and then fork; threads do not survive a fork.
started_in = 0
starting = threading.Lock()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if started_in != os.getpid():
        start_threads()
    if "CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = readable_content_type(environ["CONTENT_TYPE"])
    return django_application(environ, start_response)


def start_threads() -> None:
    """Start the threads for pulse and signing keys at a process's first request."""
    global started_in  # noqa: PLW0603
    with starting:
        if started_in != os.getpid():
            get_key_provider().start()
            threading.Thread(target=keep_pulsing, name="pulse", daemon=True).start()
            started_in = os.getpid()


def keep_pulsing() -> None:
    while True:
        pulse.pulse()
        time.sleep(pulse.PULSE_SECONDS)
