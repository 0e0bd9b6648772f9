"""Under /oidc/. The names are those that mozilla-django-oidc looks for."""

from django.urls import path

from service_registry.identity.admin_login import CallbackView, SignInView

urlpatterns = [
    path("authenticate/", SignInView.as_view(), name="oidc_authentication_init"),
    path("callback/", CallbackView.as_view(), name="oidc_authentication_callback"),
]
