"""Addresses of services in the forms that their clients want."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict


def database_settings(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for `url`, as libpq reads it.

    Takes `postgresql://user:password@host:port/name?sslmode=require` and, for a socket,
    `postgresql://user:password@/name?host=/socket/directory`. Raises ValueError for anything else; the
    message never repeats the URL, which holds a password.
    """
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ValueError("DATABASE_URL must start with postgresql://; other databases are not supported")
    try:
        parameters = conninfo_to_dict(url)
    except ProgrammingError:
        raise ValueError(
            "DATABASE_URL is not a PostgreSQL URI: use postgresql://user:password@host:port/name"
        ) from None
    if not parameters.get("dbname"):
        raise ValueError("DATABASE_URL names no database: put it after the host, as in postgresql://user@host/name")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parameters.pop("dbname"),
        "USER": parameters.pop("user", ""),
        "PASSWORD": parameters.pop("password", ""),
        "HOST": parameters.pop("host", ""),
        "PORT": str(parameters.pop("port", "")),
        "OPTIONS": parameters,
    }


def broker_url(redis_url: str) -> str:
    """Celery's spelling of `redis_url`: kombu calls `unix:///path` `redis+socket:///path`."""
    parts = urlsplit(redis_url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"REDIS_URL starts with {parts.scheme}://; use redis://, rediss:// or unix:///path")
    return redis_url.replace("unix://", "redis+socket://", 1) if parts.scheme == "unix" else redis_url
