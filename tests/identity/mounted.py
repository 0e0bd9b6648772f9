"""The project's addresses with the login among them."""

from django.urls import include, path

from registry_project.urls import urlpatterns as project

urlpatterns = [*project, path("oidc/", include("service_registry.identity.urls"))]
