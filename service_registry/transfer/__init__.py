"""Export and import the registry as JSON lines: services with owners, instances as registrations, overrides."""
