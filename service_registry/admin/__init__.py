"""The Django admin for operators. Django's autodiscovery imports this package."""

from service_registry.admin import site

__all__ = ["site"]
