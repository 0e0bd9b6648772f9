"""The wire layer that the DRF views and the ASGI handlers share."""
