"""Expiry: when the registry can hear (`hearing`), and the sweep that takes the silent off the list (`sweep`)."""
