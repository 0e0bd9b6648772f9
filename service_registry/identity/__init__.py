"""Verify OIDC tokens, and sign operators in.

This package knows neither DRF nor the HTTP server; front ends call it.
"""
