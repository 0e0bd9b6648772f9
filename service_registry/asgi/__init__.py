"""The ASGI application: the busiest requests on the event loop, everything else by Django."""
