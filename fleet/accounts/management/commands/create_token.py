from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from fleet.accounts.models import Role, User
from fleet.accounts.services import issue_token


class Command(BaseCommand):
    help = "Makes an API token and prints its secret, which is not kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", required=True, help="what it is for, such as the name of the CI job")
        parser.add_argument("--role", choices=Role.values, default=Role.OPERATOR)
        parser.add_argument("--days", type=int, help="until it expires; it never does without")

    def handle(self, *args: Any, username: str, name: str, role: str, days: int | None, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"username: {username} is unknown; make it with create_user")
        expires_at = timezone.now() + timedelta(days=days) if days else None
        _, secret = issue_token(user=user, name=name, role=role, expires_at=expires_at, actor="manage.py create_token")
        self.stdout.write(secret)
