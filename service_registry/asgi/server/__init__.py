"""HTTP/1.1 for uvicorn, with limits before a request is understood.

uvicorn makes a `Connection` for each client (`--http`). `docs/decisions/0030-limits-of-connections.md` compares it with
other servers.
"""
