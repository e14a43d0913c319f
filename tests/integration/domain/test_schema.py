"""The schema as PostgreSQL has it: indexes under foreign keys, and nothing that no migration knows."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.models import ForeignKey

pytestmark = pytest.mark.django_db

# Foreign keys by table and column that need no index, each with its reason.
WITHOUT_INDEX: dict[tuple[str, str], str] = {}

# Columns that some whole (not partial) index can be searched by: those that lead one.
LEADING_COLUMNS = """
    SELECT relation.relname, attribute.attname
    FROM pg_index JOIN pg_class relation ON relation.oid = indrelid
    JOIN pg_attribute attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indpred IS NULL AND indisvalid AND relnamespace = 'public'::regnamespace
"""
CONSTRAINED_COLUMNS = """
    SELECT relation.relname, attribute.attname
    FROM pg_constraint JOIN pg_class relation ON relation.oid = conrelid
    JOIN pg_attribute attribute ON attrelid = conrelid AND attnum = conkey[1]
    WHERE contype = 'f' AND relnamespace = 'public'::regnamespace
"""


def pairs(query: str) -> set[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return {(table, column) for table, column in cursor.fetchall()}


def test_every_foreign_key_has_an_index() -> None:
    # The keys of event tables are no constraints in the database; the models know them.
    of_models = {
        (model._meta.db_table, field.column)
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.local_fields
        if isinstance(field, ForeignKey)
    }
    keys = pairs(CONSTRAINED_COLUMNS) | of_models
    assert {("updates_updateevent", "node_id"), ("devices_linkevent", "node_id")} <= keys
    assert keys - pairs(LEADING_COLUMNS) == set(WITHOUT_INDEX)


def test_the_migrations_say_all_that_the_models_say() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
