"""Paths under /oidc/. mozilla-django-oidc looks them up by these names."""

from django.urls import path

from service_registry.identity.admin_login import CallbackView, SignInView

urlpatterns = [
    path("authenticate/", SignInView.as_view(), name="oidc_authentication_init"),
    path("callback/", CallbackView.as_view(), name="oidc_authentication_callback"),
]
