"""Verify OIDC tokens and sign operators in. No DRF and no HTTP server: front ends call this package."""
