"""The ASGI application: the busiest requests on the event loop, others by Django."""
