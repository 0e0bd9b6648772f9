"""DRF alone: viewsets, authentication, permissions and the OpenAPI document."""
