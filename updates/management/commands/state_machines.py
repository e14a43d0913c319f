from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from updates.state_pictures import documents


class Command(BaseCommand):
    help = "Writes docs/state-machines.md and its pictures from the state machines in the code."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing, fail where a file differs")

    def handle(self, *args: Any, **options: Any) -> None:
        for name, text in documents().items():
            path = settings.BASE_DIR / "docs" / name
            if not options["check"]:
                path.write_text(text)
                self.stdout.write(f"{path} written")
            elif not path.exists() or path.read_text() != text:
                raise CommandError(f"{path} differs from the code: run manage.py state_machines")
