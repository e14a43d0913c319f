"""Settings of the Django project: everything a deployment changes comes from the environment.

`docs/operations.md` lists the variables. Where `DATABASE_URL` or `REDIS_URL` is unset, the servers that
`fleet.embedded` runs are used.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fleet.embedded.services import running
from fleet.embedded.urls import broker_url, database_settings
from fleet.operations.logs import configure as configure_logs
from fleet.operations.logs import logging_settings

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("MODELFLEET_VAR", BASE_DIR / "var"))


def _secret_key() -> str:
    """The key from the environment, else one made on first run and kept readable by the owner alone."""
    if key := os.environ.get("SECRET_KEY"):
        return key
    path = VAR_DIR / "secret-key"
    VAR_DIR.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(key := secrets.token_urlsafe(50))
    return key


def _service_url(variable: str, attribute: str) -> str:
    if url := os.environ.get(variable):
        return url
    services = running(VAR_DIR)
    return getattr(services, attribute) if services else ""


DEBUG = os.environ.get("DEBUG", "") == "1"
PRODUCTION = os.environ.get("MODELFLEET_PRODUCTION", "") == "1"
SECRET_KEY = _secret_key()
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1],testserver").split(",")
CSRF_TRUSTED_ORIGINS = [origin for origin in os.environ.get("CSRF_TRUSTED_ORIGINS", "").split(",") if origin]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "django_htmx",
    "ninja",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "fleet.accounts",
    "fleet.audit",
    "fleet.blobs",
    "fleet.operations",
    "devices",
    "updates",
    "frontend",
]

MIDDLEWARE = [
    "fleet.operations.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "fleet.security.ContentSecurityPolicyMiddleware",
    "fleet.problems.ProblemMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "fleet.accounts.sessions.SessionMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "fleet.urls"
WSGI_APPLICATION = "fleet.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "frontend.context.shell",
            ],
        },
    },
]

_database_url = _service_url("DATABASE_URL", "database_url")
DATABASES = (
    {"default": {**database_settings(_database_url), "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}}
    if _database_url
    else {}
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "fleet"
LOGOUT_REDIRECT_URL = "login"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.ScryptPasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

OIDC_SERVER_URL = os.environ.get("OIDC_SERVER_URL", "")
OIDC_CLIENT_ID = os.environ.get("OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = os.environ.get("OIDC_CLIENT_SECRET", "")
OIDC_ENABLED = bool(OIDC_SERVER_URL and OIDC_CLIENT_ID and OIDC_CLIENT_SECRET)
OIDC_NAME = os.environ.get("OIDC_NAME", "single sign-on")
OIDC_SCOPES = os.environ.get("OIDC_SCOPES", "openid profile email").split()
OIDC_ROLE_CLAIM = os.environ.get("OIDC_ROLE_CLAIM", "groups")
# group=role, with commas. Empty: new users are viewers, and admins give roles.
OIDC_ROLES = dict(pair.split("=", 1) for pair in os.environ.get("OIDC_ROLES", "").split(",") if pair)
OIDC_UNKNOWN_GROUPS = os.environ.get("OIDC_UNKNOWN_GROUPS", "viewer")
SOCIALACCOUNT_ADAPTER = "fleet.accounts.oidc.SocialAccountAdapter"
SOCIALACCOUNT_LOGIN_ON_GET = True
SOCIALACCOUNT_STORE_TOKENS = False
ACCOUNT_EMAIL_VERIFICATION = "none"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
# An upload is an ONNX file with two arrays of samples; pipeline.check refuses a larger network.
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
UPLOAD_MAX_BYTES = 256 * 1024 * 1024

# Networks of our own proxies, whose X-Forwarded-For is believed.
TRUSTED_PROXIES = [network for network in os.environ.get("TRUSTED_PROXIES", "").split(",") if network]

SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
# A browser takes a __Host- cookie from this host alone, over https, for every path.
SESSION_COOKIE_NAME = "__Host-session" if PRODUCTION else "sessionid"
CSRF_COOKIE_NAME = "__Host-csrf" if PRODUCTION else "csrftoken"
SESSION_IDLE_MINUTES = int(os.environ.get("SESSION_IDLE_MINUTES", "120"))
SESSION_MAXIMUM_HOURS = int(os.environ.get("SESSION_MAXIMUM_HOURS", "12"))
SESSION_COOKIE_AGE = SESSION_MAXIMUM_HOURS * 3600
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_REDIRECT_EXEMPT = ["^health/"]  # probes ask over http, beside the proxy
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

_redis_url = _service_url("REDIS_URL", "redis_url")
CELERY_BROKER_URL = broker_url(_redis_url) if _redis_url else ""
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "campaigns"
CELERY_TASK_ROUTES = {
    "updates.tasks.build_*": {"queue": "pipeline"},
    "updates.tasks.gather_*": {"queue": "pipeline"},
    "updates.tasks.drain_*": {"queue": "links"},
    "devices.tasks.*": {"queue": "links"},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULER = "fleet.operations.beat:BeatingScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1

# How often the workers are woken to look at PostgreSQL.
TICK_SECONDS = float(os.environ.get("TICK_SECONDS", "1"))
# Simulated hours a clock hour: the stand-ins and every soak, window and timer run by it; shown on each screen.
TIME_SCALE = float(os.environ.get("TIME_SCALE", "1"))

SIGNING_KEY_FILE = Path(os.environ.get("SIGNING_KEY_FILE", VAR_DIR / "signing-key.pem"))
# Keys besides the first one, a PEM file each: `manage.py signing_key`.
SIGNING_KEY_DIR = Path(os.environ.get("SIGNING_KEY_DIR", SIGNING_KEY_FILE.parent / "signing-keys"))
# A node that failed this often within these days is left out of updates.
PENALTY_FAULTS = int(os.environ.get("PENALTY_FAULTS", "3"))
PENALTY_DAYS = int(os.environ.get("PENALTY_DAYS", "14"))
# Patches that no node and no campaign needs are kept so long; they are built again when they are needed.
PATCH_RETENTION_DAYS = float(os.environ.get("PATCH_RETENTION_DAYS", "30"))
EVENT_RETENTION_DAYS = int(os.environ.get("EVENT_RETENTION_DAYS", "400"))

LWM2M_BIND = os.environ.get("LWM2M_BIND", "127.0.0.1")
LWM2M_PORT = int(os.environ.get("LWM2M_PORT", "5683"))
# The address that nodes are told to pull from; behind a load balancer it is not the one that is bound.
LWM2M_PUBLIC = os.environ.get("LWM2M_PUBLIC", "")

# Longest wait for one call to ChirpStack, real seconds.
CHIRPSTACK_TIMEOUT_S = float(os.environ.get("CHIRPSTACK_TIMEOUT_S", "5"))
# PEM of the CA that signed its certificate, where that is one of your own.
CHIRPSTACK_CA_FILE = os.environ.get("CHIRPSTACK_CA_FILE", "")
# Who may read /metrics: a bearer of this token. Without one it is served in DEBUG only.
METRICS_TOKEN = os.environ.get("METRICS_TOKEN", "")
# The address that people, CI and ChirpStack use, such as https://fleet.example.com.
PUBLIC_URL = os.environ.get("PUBLIC_URL", "")

LOGGING = logging_settings(os.environ.get("LOG_LEVEL", "INFO"))
configure_logs()
