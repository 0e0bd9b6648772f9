"""The registry as JSON lines: services with their owners, instances as registrations, and overrides."""
