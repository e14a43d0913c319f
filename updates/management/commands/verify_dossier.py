from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from updates.dossier import verified_dossier
from updates.patches.jws import NotGenuine
from updates.patches.signing import KeyUnusable


class Command(BaseCommand):
    help = "Checks the signature of a version's dossier and prints what it says as plain JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--key", action="append", default=[], metavar="HEX", help="trust this public key, not the installation's"
        )

    def handle(self, *, file: Path, key: list[str], **options: Any) -> None:
        try:
            public_keys = [bytes.fromhex(one) for one in key]
            document = verified_dossier(json.loads(file.read_bytes()), public_keys=public_keys)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}", returncode=2) from error
        except (NotGenuine, KeyUnusable, ValueError) as error:
            raise CommandError(f"{file}: not genuine: {error}.", returncode=1) from error
        self.stdout.write(json.dumps(document, indent=2))
