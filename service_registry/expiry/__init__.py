"""Expiry: instances whose heartbeats stop leave the list, unless protected.

See docs/expiry.md.
"""
