from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from fleet.accounts.models import Role, User
from fleet.accounts.permissions import Scope
from fleet.accounts.services import AccountRefused, issue_token


class Command(BaseCommand):
    help = "Makes an API token and prints its secret, which is not kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", required=True, help="what it is for, such as the name of the CI job")
        parser.add_argument(
            "--scope", action="append", choices=Scope.values, dest="scopes", help="repeat it for more than one"
        )
        parser.add_argument(
            "--role", choices=Role.values, default=Role.OPERATOR, help="without --scope: all that this role may do"
        )
        parser.add_argument("--days", type=int, help="until it expires; it never does without")

    def handle(
        self,
        *args: Any,
        username: str,
        name: str,
        role: str,
        days: int | None,
        scopes: list[str] | None = None,
        **options: Any,
    ) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"username: {username} is unknown; make it with create_user")
        expires_at = timezone.now() + timedelta(days=days) if days else None
        actor = "manage.py create_token"
        try:
            _, secret = issue_token(user=user, name=name, scopes=scopes, role=role, expires_at=expires_at, actor=actor)
        except AccountRefused as refusal:
            raise CommandError(f"{refusal.field}: {refusal}") from refusal
        self.stdout.write(secret)
