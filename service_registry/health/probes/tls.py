"""TLS contexts of health checks."""

import functools
import ssl

from django.conf import settings


@functools.cache
def tls_context(verify: bool) -> ssl.SSLContext:
    """Return a context that trusts REGISTRY_HEALTH_CA_FILE, or the system's authorities without it.

    Args:
        verify: check the certificate and its name.

    Raises:
        OSError: the file cannot be read.
    """
    context = ssl.create_default_context(cafile=settings.REGISTRY_HEALTH_CA_FILE or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
