"""The Django admin for operators. Django's autodiscovery imports this package."""

from service_registry.admin import denials, site, users

__all__ = ["denials", "site", "users"]
