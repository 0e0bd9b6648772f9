"""Expiry: instances whose heartbeats stop leave the list, unless a rule protects them. See docs/expiry.md."""
