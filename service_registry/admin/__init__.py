"""The Django admin for operators. Django imports this package to find the registered models."""

from service_registry.admin import site

__all__ = ["site"]
