"""Limits of a connection that an operator has no reason to change.

`docs/settings.md` has the others. Times are in seconds.
"""

# The request line and all headers. A token with hundreds of groups has 16 KiB.
HEAD_BYTES = 32 * 1024
HEADERS = 100
# From a connection, or from the first byte of a later request, until the headers are complete.
HEAD_SECONDS = 10.0
# One read of the socket, and so about half of what is read of a body before a handler asks for it. Requests without an
# accepted token may wait for their handler on thousands of connections.
READ_BYTES = 64 * 1024
ANONYMOUS_READ_BYTES = 4 * 1024
# Requests that wait behind the one under way. A client that sends more is disconnected: reading no more would hide that
# it has left, and keep what its request holds.
PIPELINED_BYTES = 64 * 1024
# Of a body that its handler did not need, before the client may send another request.
UNWANTED_BYTES = 4 * 1024 * 1024
UNWANTED_SECONDS = 10.0
# Requests without a token, and those behind one that was not accepted: this number is started at once, and the same
# number after each pause.
ANONYMOUS_REQUESTS = 4
ANONYMOUS_PAUSE_SECONDS = 0.004
# A refused client may take this long to read why; the connection would otherwise be reset under the response.
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
MAX_LINGERING = 500
# Longer than a client may read nothing of a response (asgi/flow_control.py).
CLOSE_SECONDS = 35.0
# How often connections are checked for their deadline.
CHECK_SECONDS = 0.5
# After a search for connections that can be closed in favour of others has found none.
SEARCH_PAUSE_SECONDS = 0.1
# File descriptors that are left for the database, files and new connections that are refused.
SPARE_FILES = 200
