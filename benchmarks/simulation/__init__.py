"""Expiry in virtual time: fleets that beat, die or are cut off, before a registry which decides by the same rules."""
