"""The WSGI application of the registry.

Watches and blocking reads need an event loop: only `registry_project.asgi` serves them.
"""

import os
import re
import threading
import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django_application = get_wsgi_application()

from service_registry import checks, pulse  # noqa: E402 - they import the models
from service_registry.identity.key_provider import get_key_provider  # noqa: E402

checks.require_valid_settings()

CHARSET = re.compile(r";\s*charset\s*=[^;]*", re.IGNORECASE)

# The process in which the threads run. WSGI servers load the application and then fork; threads do not survive a fork.
started_in = 0
starting = threading.Lock()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if started_in != os.getpid():
        start_threads()
    # Queries and bodies are UTF-8. Django decodes the query with the charset, in the constructor of its request, and
    # fails for codecs that are not for text, such as base64.
    if "CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = CHARSET.sub("", environ["CONTENT_TYPE"])
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
