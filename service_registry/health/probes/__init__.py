"""Probe a target: connect over TCP, ask over HTTP, or ask a gRPC server's health service."""

from service_registry.health.probes.probe import probe

__all__ = ["probe"]
