"""Simulate expiry in virtual time: fleets that die or are cut off, and a registry with the product's rules."""
