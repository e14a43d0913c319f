"""Monthly range partitions for append-only event tables (PostgreSQL 18, "Table Partitioning")."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

TABLES = ("devices_linkevent", "updates_updateevent")


def partition_sql(table: str, indexes: str) -> str:
    """Turns a freshly made, empty Django table into one partitioned by month on `at`, keyed by (id, at).

    A default partition takes rows whose month has no partition yet, so that an insert never fails.
    """
    return f"""
        ALTER TABLE {table} RENAME TO {table}_template;
        CREATE TABLE {table} (LIKE {table}_template INCLUDING DEFAULTS INCLUDING IDENTITY) PARTITION BY RANGE (at);
        DROP TABLE {table}_template CASCADE;
        ALTER TABLE {table} ADD PRIMARY KEY (id, at);
        CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;
        {indexes}
    """


def _month_after(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)


def make_partitions_ahead(*, now: datetime, months: int = 3) -> list[str]:
    """Makes the partitions of this month and the `months` after it; returns the names of new ones.

    Rows that came before their partition, and so lie in the default one, move into it: PostgreSQL refuses a partition
    whose rows lie in the default one.
    """
    made = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('fleet.partitions'))")  # one maker at a time
        for table in TABLES:
            first = now.date().replace(day=1)
            for _ in range(months + 1):
                name, following = f"{table}_{first:%Y%m}", _month_after(first)
                cursor.execute("SELECT to_regclass(%s)", [name])
                if cursor.fetchone() == (None,):
                    _make_partition(cursor, table, name, first, following)
                    made.append(name)
                first = following
    return made


def _make_partition(cursor: CursorWrapper, table: str, name: str, first: date, following: date) -> None:
    cursor.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS)")
    cursor.execute(f"LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE")  # no row may slip in behind the move
    cursor.execute(
        f"WITH moved AS (DELETE FROM {table}_default WHERE at >= '{first}' AND at < '{following}' RETURNING *)"  # noqa: S608 - our own names and dates
        f" INSERT INTO {name} SELECT * FROM moved"
    )
    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{following}')")


def drop_expired_partitions(*, now: datetime, keep_days: int) -> list[str]:
    """Drops partitions whose whole month is older than `keep_days`; returns their names.

    The default partition, which is never dropped, loses its rows that are older: what a gateway with a wrong clock reported
    would lie there for ever.
    """
    oldest = (now - timedelta(days=keep_days)).date()
    dropped = []
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", [table])
            for (name,) in cursor.fetchall():
                suffix = name.removeprefix(f"{table}_")
                if suffix.isdigit() and _month_after(datetime.strptime(suffix, "%Y%m").date()) <= oldest:
                    cursor.execute(f"DROP TABLE {name}")
                    dropped.append(name)
            cursor.execute(f"DELETE FROM {table}_default WHERE at < %s", [now - timedelta(days=keep_days)])  # noqa: S608 - our own names
    return dropped
