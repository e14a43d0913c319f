"""Addresses of services reach Django and Celery in the forms that these want."""

from __future__ import annotations

import pytest

from fleet.embedded.urls import broker_url, database_settings


def test_a_database_over_the_network() -> None:
    settings = database_settings("postgresql://ann:p%40ss@db.example:6432/fleet?sslmode=require")
    assert settings == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "fleet",
        "USER": "ann",
        "PASSWORD": "p@ss",
        "HOST": "db.example",
        "PORT": "6432",
        "OPTIONS": {"sslmode": "require"},
    }


def test_a_database_on_a_socket() -> None:
    settings = database_settings("postgresql://ann:secret@/fleet?host=/run/postgres")
    assert (settings["HOST"], settings["PORT"], settings["OPTIONS"]) == ("/run/postgres", "", {})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://ann:secret@db/fleet", "must start with postgresql://"),
        ("postgresql://ann:secret@db", "names no database"),
        ("postgresql://ann:secret@db:port:1/fleet?nosuch=1", "is not a PostgreSQL URI"),
    ],
)
def test_a_wrong_database_address_is_explained_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        database_settings(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("unix:///tmp/x/redis.sock", "redis+socket:///tmp/x/redis.sock"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("rediss://cache/1", "rediss://cache/1"),
    ],
)
def test_a_broker_is_spelled_as_celery_does(url: str, spelling: str) -> None:
    assert broker_url(url) == spelling


def test_another_broker_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="amqp://; use redis://") as raised:
        broker_url("amqp://ann:secret@broker")
    assert "secret" not in str(raised.value)
