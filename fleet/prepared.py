"""Statements of the paths that each report of each node takes: planned once a connection, one round trip each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import OperationalError, connection

# Executions on a connection until PostgreSQL keeps the statement parsed and planned.
_PREPARE_AFTER = 2


def run(statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Rows of a statement that may be run twice without harm, on Django's connection and in its transaction, if any.

    Outside of a transaction no question goes ahead whether the connection still lives, as Django's would: where it does
    not, the statement is run again on a new one. Raises django.db.Error.
    """
    if connection.in_atomic_block:
        return _run(statement, values)
    connection.health_check_done = True  # type: ignore[attr-defined]  # not in the stubs
    try:
        return _run(statement, values)
    except OperationalError:
        connection.close()
        return _run(statement, values)


def _run(statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.wrap_database_errors:
        connection.ensure_connection()
        raw = connection.connection
        raw.prepare_threshold = _PREPARE_AFTER
        # Django's own cursors put the values into the text, so that each text is planned anew.
        with psycopg.Cursor(raw) as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
