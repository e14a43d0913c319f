from __future__ import annotations

import os
import secrets
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from fleet.accounts.models import Role, User
from fleet.accounts.services import create_user


class Command(BaseCommand):
    help = "Makes a user; the password comes from MODELFLEET_PASSWORD, else one is made and printed this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--role", choices=Role.values, default=Role.VIEWER)
        parser.add_argument("--ensure", action="store_true", help="succeed where the user exists, changing nothing")

    def handle(self, *args: Any, username: str, role: str, ensure: bool, **options: Any) -> None:
        if ensure and User.objects.filter(username=username).exists():
            self.stdout.write(f"{username} exists.")
            return
        given = os.environ.get("MODELFLEET_PASSWORD")
        password = given or secrets.token_urlsafe(15)
        try:
            create_user(username=username, password=password, role=role, actor="manage.py create_user")
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stdout.write(f"{username} ({role})" + ("" if given else f", password: {password}"))
