from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from updates.campaigns.reconcile import reconcile


class Command(BaseCommand):
    help = "Proves that tallies equal rows, that no node has two open updates and that no event is missing."

    def handle(self, *args: Any, **options: Any) -> None:
        findings = reconcile()
        for finding in findings:
            self.stdout.write(finding)
        if findings:
            raise CommandError(f"{len(findings)} findings; the lines above name them")
        self.stdout.write("Tallies equal rows, no node has two open updates, no event is missing.")
