"""Content-Type for Django, which parses all of its parameters in the constructors of its requests."""

import re

# RFC 2046, section 5.1.1.
BOUNDARY = re.compile(r""";\s*boundary="?([0-9A-Z'()+_,./:=?-]{1,70})"?\s*(?:;|$)""", re.IGNORECASE | re.ASCII)


def readable_content_type(sent: str) -> str:
    """Return a media type with the boundary of a multipart body, and without other parameters.

    There is no request to answer yet where Django fails on one: on an unknown charset in a parameter (RFC 2231), or on
    a codec that is not for text, with which plain WSGI would decode the query. Bodies and queries are UTF-8.
    """
    media_type = sent.partition(";")[0].strip()
    boundary = BOUNDARY.search(sent)
    return f'{media_type}; boundary="{boundary[1]}"' if boundary else media_type
