"""All settings, in one file. Each knob is an environment variable of the same name, with its unit in the name."""

import os
import secrets
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from psycopg import Error
from psycopg.conninfo import make_conninfo

from registry_project import env
from service_registry.database.connection import CONNECT_SECONDS

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = env.flag("DEBUG", default=False)
REGISTRY_DATA_DIR = env.path("REGISTRY_DATA_DIR", BASE_DIR / "var")


def secret_key() -> str:
    """The key from the environment; with DEBUG on one that is made at first start and kept in the data directory."""
    given = env.text("SECRET_KEY")
    if given:
        return given
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set; with DEBUG off it must be a secret of 50 or more characters."
        )
    try:
        return kept_secret_key(REGISTRY_DATA_DIR / "secret_key")
    except OSError as error:
        raise ImproperlyConfigured(
            f"REGISTRY_DATA_DIR cannot keep the secret key, and SECRET_KEY is not set: {error.strerror}."
        ) from error


def kept_secret_key(kept: Path) -> str:
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return kept.read_text()


SECRET_KEY = secret_key()
if not DEBUG and len(SECRET_KEY) < 50:
    raise ImproperlyConfigured("SECRET_KEY is too short; with DEBUG off it must be a secret of 50 or more characters.")

ALLOWED_HOSTS = env.listed("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]" if DEBUG else "")
if not DEBUG and (not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS):
    raise ImproperlyConfigured(
        "ALLOWED_HOSTS must list the host names this registry answers to; * is refused with DEBUG off."
    )

# --- Identity -------------------------------------------------------------------------------------------------------

# The path by which the issuer that `make run` brings along is told from a real one.
DEVELOPMENT_ISSUER_PATH = "/development-issuer"
LOOPBACK_HOSTS = {"127.0.0.1", "::1", "localhost"}

OIDC_ISSUER = env.text("OIDC_ISSUER")
OIDC_AUDIENCE = env.text("OIDC_AUDIENCE", "service-registry" if DEBUG else "")
OIDC_JWKS_URI = env.text("OIDC_JWKS_URI")
OIDC_GROUP_CLAIMS = env.listed("OIDC_GROUP_CLAIMS", "groups,realm_access.roles")
OIDC_LEEWAY_SECONDS = env.integer("OIDC_LEEWAY_SECONDS", 30, 0, 300)
OIDC_KEYS_MAX_AGE_SECONDS = env.integer("OIDC_KEYS_MAX_AGE_SECONDS", 86400, 300, 604800)
OIDC_ALGORITHMS = env.listed("OIDC_ALGORITHMS", "RS256,ES256,PS256,EdDSA")
SUPPORTED_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}
if not OIDC_ALGORITHMS or set(OIDC_ALGORITHMS) - SUPPORTED_ALGORITHMS:
    raise ImproperlyConfigured(f"OIDC_ALGORITHMS must be some of {', '.join(sorted(SUPPORTED_ALGORITHMS))}.")


def require_issuer(name: str, url: str) -> None:
    """Raise ImproperlyConfigured unless `url` may be trusted for keys: https, or http on loopback."""
    parts = env.parts(name, url)
    on_loopback = parts.hostname in LOOPBACK_HOSTS
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and on_loopback)):
        raise ImproperlyConfigured(f"{name} must be the https address of your OIDC provider (http only on loopback).")
    if not DEBUG and parts.path.rstrip("/") == DEVELOPMENT_ISSUER_PATH:
        raise ImproperlyConfigured(f"{name} is the development issuer; with DEBUG off it must be your own provider.")


require_issuer("OIDC_ISSUER", OIDC_ISSUER)
if OIDC_JWKS_URI:
    require_issuer("OIDC_JWKS_URI", OIDC_JWKS_URI)
if not OIDC_AUDIENCE:
    raise ImproperlyConfigured("OIDC_AUDIENCE must be the name that your provider writes into `aud` for this registry.")

OIDC_RP_CLIENT_ID = env.text("OIDC_RP_CLIENT_ID", "service-registry-admin" if DEBUG else "")
OIDC_RP_CLIENT_SECRET = env.text("OIDC_RP_CLIENT_SECRET")
OIDC_RP_SCOPES = "openid profile email"
OIDC_USE_PKCE = True
OIDC_STORE_ACCESS_TOKEN = False
OIDC_STORE_ID_TOKEN = False

AUTH_USER_MODEL = "service_registry.User"
# Operators come from the OIDC provider; a local user with a password is the way in while the provider is down.
AUTHENTICATION_BACKENDS = [
    "service_registry.identity.admin_login.AdminLoginBackend",
    "django.contrib.auth.backends.ModelBackend",
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
LOGOUT_REDIRECT_URL = "admin:login"

# --- The registry's rules -------------------------------------------------------------------------------------------

REGISTRY_IGNORED_GROUPS = env.listed("REGISTRY_IGNORED_GROUPS", "offline_access,uma_authorization,default-roles-*")
REGISTRY_DEFAULT_TTL_SECONDS = env.integer("REGISTRY_DEFAULT_TTL_SECONDS", 30, 5, 86400)
REGISTRY_SWEEP_INTERVAL_SECONDS = env.integer("REGISTRY_SWEEP_INTERVAL_SECONDS", 2, 1, 60)
REGISTRY_RETENTION_SECONDS = env.integer("REGISTRY_RETENTION_SECONDS", 600, 1, 2592000)
REGISTRY_SILENCE_MAX_SECONDS = env.integer("REGISTRY_SILENCE_MAX_SECONDS", 3600, 0, 86400)
REGISTRY_PROTECTION_FRACTION = env.fraction("REGISTRY_PROTECTION_FRACTION", 0.15)
REGISTRY_PROTECTION_MINIMUM = env.integer("REGISTRY_PROTECTION_MINIMUM", 5, 1, 1_000_000)
REGISTRY_PROTECTION_MAX_SECONDS = env.integer("REGISTRY_PROTECTION_MAX_SECONDS", 900, 0, 86400)
REGISTRY_SERVICE_PROTECTION_FRACTION = env.fraction("REGISTRY_SERVICE_PROTECTION_FRACTION", 0.5)
REGISTRY_SERVICE_PROTECTION_MAX_SECONDS = env.integer("REGISTRY_SERVICE_PROTECTION_MAX_SECONDS", 120, 0, 86400)
REGISTRY_FIRST_REGISTRATION = env.text("REGISTRY_FIRST_REGISTRATION", "claim", ("claim", "provisioned"))
REGISTRY_NAME_RESERVATION_DAYS = env.integer("REGISTRY_NAME_RESERVATION_DAYS", 30, 0, 3650)
REGISTRY_CHANGE_RETENTION_DAYS = env.integer("REGISTRY_CHANGE_RETENTION_DAYS", 30, 1, 3650)
REGISTRY_SECRET_METADATA = env.text("REGISTRY_SECRET_METADATA", "refuse", ("refuse", "redact", "allow"))
REGISTRY_MAX_INSTANCES_PER_OWNER = env.integer("REGISTRY_MAX_INSTANCES_PER_OWNER", 10_000, 1, 10_000_000)

# --- Django ---------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    # Permissions are made by auth's receiver, which must have run before the registry's; templates of ours override
    # the admin's.
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "service_registry",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "service_registry.api.middleware.RegistryMiddleware",
    "service_registry.http.security_headers.ContentPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "registry_project.urls"
WSGI_APPLICATION = "registry_project.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


# Django's own, on connections with deadlines; it also counts statements and errors, and how long statements take.
ENGINE = "service_registry.database"
# What libpq takes as numbers, it reads only when it connects; and without a bound a connection is waited for forever.
NUMERIC_OPTIONS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")


def database() -> dict[str, Any]:
    url = env.text("DATABASE_URL")
    if not url.startswith(("postgres://", "postgresql://")):
        raise ImproperlyConfigured(
            "DATABASE_URL must be the address of a PostgreSQL: postgresql://user:password@host/name."
        )
    try:
        parsed: dict[str, Any] = dict(
            dj_database_url.parse(url, engine=ENGINE, conn_max_age=600, conn_health_checks=True)
        )
    except ValueError as error:
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be read; it must look like postgresql://user:password@host/name."
        ) from error
    # A transaction pooler between us and the server keeps no prepared statements and no session state.
    parsed["DISABLE_SERVER_SIDE_CURSORS"] = True
    options: dict[str, Any] = parsed.get("OPTIONS", {})
    if not parsed["NAME"] and "service" not in options:
        raise ImproperlyConfigured("DATABASE_URL names no database: postgresql://user:password@host/name.")
    require_connection_options(options)
    parsed["OPTIONS"] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "service-registry",
        **options,
    }
    return parsed


def require_connection_options(options: dict[str, Any]) -> None:
    """Raise ImproperlyConfigured for what stands after the ? of DATABASE_URL and libpq would not take."""
    try:
        make_conninfo("", **options)
    except Error as error:
        raise ImproperlyConfigured(f"DATABASE_URL has an option that libpq does not know: {error}".strip()) from error
    for name in NUMERIC_OPTIONS:
        if name in options and not (str(options[name]).isascii() and str(options[name]).isdigit()):
            raise ImproperlyConfigured(f"DATABASE_URL must give {name} as a whole number.")
    # A thread that waits for a connection answers nobody.
    if not 1 <= int(options.get("connect_timeout", CONNECT_SECONDS)) <= 10:
        raise ImproperlyConfigured("DATABASE_URL must give connect_timeout as 1 to 10 seconds.")


DATABASES = {"default": database()}

# A way past a transaction pooler, on which NOTIFY is heard.
DATABASE_DIRECT_URL = env.text("DATABASE_DIRECT_URL")
if DATABASE_DIRECT_URL and not DATABASE_DIRECT_URL.startswith(("postgres://", "postgresql://")):
    raise ImproperlyConfigured(
        "DATABASE_DIRECT_URL must be the address of a PostgreSQL: postgresql://user:password@host/name."
    )
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False

STATIC_URL = "/static/"
# The web process serves the files where they are; nothing has to be collected.
WHITENOISE_USE_FINDERS = True

# The largest body a caller may send. The web server's bridge and the parser both stop there.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# TLS ends at the proxy in front; a redirect would only hide a bearer token that was sent in the clear.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else 31_536_000
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]

# --- DRF ------------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["service_registry.api.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["service_registry.api.permissions.ActionPermission"],
    "DEFAULT_PARSER_CLASSES": ["service_registry.api.parser.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["service_registry.api.renderer.RegistryJSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "service_registry.api.renderer.IgnoreAccept",
    "DEFAULT_SCHEMA_CLASS": "service_registry.api.openapi.RegistrySchema",
    "DEFAULT_THROTTLE_CLASSES": [],
    "DEFAULT_PAGINATION_CLASS": None,
    "DEFAULT_FILTER_BACKENDS": [],
    "EXCEPTION_HANDLER": "service_registry.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Service Registry",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "service_registry.api.openapi.remove_trailing_slashes",
    ],
    "ENUM_NAME_OVERRIDES": {
        name: f"service_registry.choices.{name}.values" for name in ("Status", "Scheme", "State", "ChangeKind")
    },
}

# --- Celery ---------------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", "memory://")
BROKER_SCHEMES = {"memory", "redis", "rediss", "amqp", "amqps"}
if env.parts("CELERY_BROKER_URL", CELERY_BROKER_URL).scheme not in BROKER_SCHEMES:
    raise ImproperlyConfigured("CELERY_BROKER_URL must be a redis://, rediss://, amqp:// or amqps:// address.")
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "service_registry.tasks.sweep",
        "schedule": float(REGISTRY_SWEEP_INTERVAL_SECONDS),
        "options": {"expires": float(REGISTRY_SWEEP_INTERVAL_SECONDS)},
    },
}

# --- Logs -----------------------------------------------------------------------------------------------------------

REGISTRY_LOG_HEARTBEATS = env.text("REGISTRY_LOG_HEARTBEATS", "changes", ("changes", "all", "none"))
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"registry": {"()": "service_registry.logs.choose_formatter"}},
    "filters": {"has_traceback": {"()": "service_registry.logs.HasTraceback"}},
    "handlers": {
        "stderr": {"()": "service_registry.logs.StderrHandler", "formatter": "registry"},
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        **{name: {"handlers": [], "propagate": True} for name in ("django", "uvicorn", "uvicorn.error")},
        # What these say of a request its operation's line says, without the query, which may hold metadata.
        "django.request": {"filters": ["has_traceback"]},
        "django.security.DisallowedHost": {"handlers": ["nowhere"], "propagate": False},
        **{name: {"handlers": [], "propagate": True, "level": "ERROR"} for name in ("django.server", "uvicorn.access")},
        # It would tell of every sweep.
        "celery": {"level": "WARNING"},
        # It would warn of a broker in memory, which has no host.
        "kombu.connection": {"level": "ERROR"},
    },
}

# --- Metrics --------------------------------------------------------------------------------------------------------

REGISTRY_METRICS_PUBLIC = env.flag("REGISTRY_METRICS_PUBLIC", default=False)
PROMETHEUS_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Read again by the Prometheus library, from the environment, when it is first imported.
PROMETHEUS_MULTIPROC_DIR = env.text("PROMETHEUS_MULTIPROC_DIR")
if PROMETHEUS_MULTIPROC_DIR:
    try:
        Path(PROMETHEUS_MULTIPROC_DIR).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"PROMETHEUS_MULTIPROC_DIR is no directory that can be made: {error.strerror}."
        ) from error
else:
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

# --- Processes ------------------------------------------------------------------------------------------------------

REGISTRY_BIND = env.text("REGISTRY_BIND", "127.0.0.1")
REGISTRY_PORT = env.integer("REGISTRY_PORT", 8000, 1, 65535)
WEB_PROCESSES = env.integer("WEB_PROCESSES", 1, 1, 64)
WEB_THREADS = env.integer("WEB_THREADS", 2, 1, 64)
