from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from fleet.api import api

SNAPSHOT = settings.BASE_DIR / "docs" / "openapi.json"


class Command(BaseCommand):
    help = "Writes docs/openapi.json; with --check, fails where it is not what the API is."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true")

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        schema = json.dumps(api.get_openapi_schema(), indent=1, sort_keys=True) + "\n"
        if not check:
            SNAPSHOT.write_text(schema)
        elif not SNAPSHOT.exists() or SNAPSHOT.read_text() != schema:
            raise CommandError("docs/openapi.json is not what the API is: run manage.py openapi and commit it")
