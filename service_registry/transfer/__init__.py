"""Export and import the registry as JSON lines.

They contain services with owners, instances as registrations, and overrides.
"""
