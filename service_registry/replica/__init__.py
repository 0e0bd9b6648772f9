"""The catalogue in memory, kept current from the change log.

A process that serves reads creates a `Hub` on its event loop and starts a `Feed` for it. Requests read
`hub.current_replica()`, resume from `hub.buffer`, and wait through `hub.subscribers`. Nothing here knows HTTP, so that
a server for another protocol can use it, in the same process or in its own.
"""
