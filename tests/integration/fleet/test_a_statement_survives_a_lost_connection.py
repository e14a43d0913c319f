"""The path of each report asks nothing before whether the database still hears it: it finds out, and asks again."""

from __future__ import annotations

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from fleet import prepared

pytestmark = pytest.mark.django_db(transaction=True)


def end_the_connection() -> None:
    """As a restart of PostgreSQL does, from elsewhere."""
    connection.ensure_connection()
    ours = connection.connection.info
    with psycopg.connect(ours.dsn, password=ours.password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [ours.backend_pid])


def test_outside_of_a_transaction_it_is_run_again_on_a_new_connection() -> None:
    end_the_connection()

    assert prepared.run("SELECT %(number)s::int", {"number": 7}) == [(7,)]


def test_within_one_it_fails_for_what_went_before_is_lost() -> None:
    with pytest.raises(OperationalError), transaction.atomic():
        prepared.run("SELECT 1", {})
        end_the_connection()
        prepared.run("SELECT 1", {})
