"""Active health checks: the registry calls instances that ask for it."""
