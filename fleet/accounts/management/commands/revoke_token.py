from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from fleet.accounts.models import ApiToken
from fleet.accounts.services import revoke_token


class Command(BaseCommand):
    help = "Revokes an API token, at once and for good."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("token", metavar="NAME|ID", help="its name, or its number where tokens share a name")

    def handle(self, *args: Any, token: str, **options: Any) -> None:
        found = list(ApiToken.objects.filter(name=token, revoked_at__isnull=True).select_related("user"))
        if not found and token.isascii() and token.isdigit():
            found = list(ApiToken.objects.filter(pk=int(token), revoked_at__isnull=True).select_related("user"))
        if not found:
            raise CommandError(f"token: no token that is not revoked has the name or number {token}")
        if len(found) > 1:
            numbers = ", ".join(f"{one.pk} (of {one.user})" for one in found)
            raise CommandError(f"token: {len(found)} tokens are named {token}; give the number of one: {numbers}")
        revoke_token(token=found[0], actor="manage.py revoke_token", now=timezone.now())
        self.stdout.write(f"{found[0]} is revoked.")
