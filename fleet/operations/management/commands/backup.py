from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from fleet.operations.backup import BackupFailed, backup


class Command(BaseCommand):
    help = "Writes all of the database to a file, while everything runs. The two keys are kept apart."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *, file: Path, **options: Any) -> None:
        try:
            size = backup(file)
        except BackupFailed as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{file}: {size} bytes.")
        self.stdout.write(
            f"Not in it, keep them apart: SECRET_KEY (or {settings.VAR_DIR / 'secret-key'}), without which sealed secrets "
            f"cannot be read, and the signing key {settings.SIGNING_KEY_FILE}, without which nodes accept no update."
        )
