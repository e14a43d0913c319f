"""A database of its own for a benchmark, made by the migrations and dropped at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import django


@contextmanager
def fresh_database() -> Iterator[None]:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
    django.setup()
    from django.db import connection
    from django.test.utils import setup_databases, teardown_databases

    # A test that runs a benchmark keeps the usual test database open, and a second benchmark may run beside this one.
    connection.settings_dict["TEST"]["NAME"] = f"benchmark_{os.getpid()}"
    old = setup_databases(verbosity=0, interactive=False)
    try:
        yield
    finally:
        teardown_databases(old, verbosity=0)


@contextmanager
def indexes_afterwards(*tables: str) -> Iterator[None]:
    """Builds the GIN indexes of these tables once, behind the rows that are put in within: row by row, a million nodes take
    ten minutes and more."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)", [list(tables)])
        known = [(name, text) for name, text in cursor.fetchall() if re.search(r"USING gin", text)]
        for name, _ in known:
            cursor.execute(f"DROP INDEX {name}")
        yield
        cursor.execute("SET maintenance_work_mem = '512MB'")
        for _, text in known:
            cursor.execute(text)
