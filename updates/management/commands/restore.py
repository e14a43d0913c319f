from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from fleet.operations.backup import BackupFailed, restore
from updates.recovery import key_findings, skip_sequences


class Command(BaseCommand):
    help = "Fills an empty database from a file that `backup` wrote, and says whether the keys beside it are the right ones."
    # They may read tables that are not there yet.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *, file: Path, **options: Any) -> None:
        try:
            restore(file)
        except BackupFailed as error:
            raise CommandError(str(error)) from error
        call_command("migrate", verbosity=0, interactive=False)
        self.stdout.write(f"Restored from {file}. The next campaign gets the sequence {skip_sequences()}.")
        findings = key_findings()
        for finding in findings:
            self.stdout.write(finding)
        if findings:
            raise CommandError("The database is restored; start nothing before the keys are right.")
        self.stdout.write("SECRET_KEY and the signing key are those of the backup. `reconcile` proves the rest.")
