from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from updates.patches.signing import KeyUnusable
from updates.signing_keys import KeyRefused, activate_key, add_key, key_rows, retire_key


class Command(BaseCommand):
    help = "Rotates the key that signs manifests: add, bring its public key to the nodes, activate, retire the old one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="the keys, and how many nodes have each by their firmware build's key_ids")
        actions.add_parser("add", help="makes the next key")
        activate = actions.add_parser("activate", help="from now on this key signs")
        activate.add_argument("key_id")
        activate.add_argument("--even-if-unknown", action="store_true", help="also where nodes may not have it")
        actions.add_parser("retire", help="this key never signs again").add_argument("key_id")

    def handle(self, *, action: str, key_id: str = "", even_if_unknown: bool = False, **options: Any) -> None:
        actor = f"{getpass.getuser()} on the command line"
        try:
            if action == "add":
                key = add_key(actor=actor, now=timezone.now())
                self.stdout.write(f"{key.key_id} is made. Build its public key into the firmware: {key.public_key}")
            elif action == "activate":
                activate_key(key_id=key_id, actor=actor, even_if_unknown=even_if_unknown)
                self.stdout.write(f"{key_id} signs from now on.")
            elif action == "retire":
                retire_key(key_id=key_id, actor=actor, now=timezone.now())
                self.stdout.write(f"{key_id} is retired.")
            else:
                self._list()
        except (KeyRefused, KeyUnusable) as error:
            raise CommandError(str(error)) from error

    def _list(self) -> None:
        rows = key_rows()
        for row in rows:
            state = "active" if row.key.active else "retired" if row.key.retired_at else "ready"
            self.stdout.write(
                f"{row.key.key_id}  {state:7}  {'private key here' if row.at_hand else 'NO private key here'}  nodes: "
                f"{row.nodes_with} have it, {row.nodes_without} do not, {row.nodes_unknown} unknown  {row.key.public_key}"
            )
        if not rows:
            self.stdout.write("One key, never rotated: `signing_key add` makes the second.")
