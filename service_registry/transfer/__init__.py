"""Export and import the registry as JSON lines.

They hold services with owners, instances as registrations, and overrides.
"""
