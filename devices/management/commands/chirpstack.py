"""What the dashboard's buttons do, for a terminal: `manage.py chirpstack check|setup|discover NAME`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from devices.links.lorawan.checking import check
from devices.links.lorawan.chirpstack import ChirpStackError
from devices.links.lorawan.discovery import discover
from devices.links.lorawan.models import NetworkServer
from devices.links.lorawan.servers import set_up

ACTOR = "manage.py chirpstack"


class Command(BaseCommand):
    help = "Checks the connection to a ChirpStack, sets up its integrations, or registers its devices as nodes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["check", "setup", "discover"])
        parser.add_argument("server", nargs="?", help="its name; may be left out where there is only one")

    def handle(self, *args: Any, **options: Any) -> None:
        server = self._server(options["server"])
        try:
            getattr(self, f"_{options['action']}")(server)
        except ChirpStackError as error:
            raise CommandError(f"{error.field}: {error}") from error

    def _server(self, name: str | None) -> NetworkServer:
        servers = NetworkServer.objects.all() if name is None else NetworkServer.objects.filter(name=name)
        found = list(servers[:2])
        if len(found) == 1:
            return found[0]
        names = ", ".join(NetworkServer.objects.values_list("name", flat=True)) or "none yet: add one first"
        raise CommandError(f"server: give the name of one of these: {names}")

    def _check(self, server: NetworkServer) -> None:
        findings = check(server_id=server.pk)
        for finding in findings:
            fix = f" {finding.fix}" if finding.fix else ""
            self.stdout.write(f"{finding.level:8}{finding.subject}: {finding.message}{fix}")
        if any(finding.level == "problem" for finding in findings):
            raise CommandError("Nodes are not reached until the problems above are solved.")

    def _setup(self, server: NetworkServer) -> None:
        done = set_up(server_id=server.pk, actor=ACTOR)
        self.stdout.write(f"Events of {', '.join(done) or 'no application'} now come to {server.events_url}")

    def _discover(self, server: NetworkServer) -> None:
        found = discover(server_id=server.pk, actor=ACTOR)
        self.stdout.write(
            f"{found.devices} devices: {found.registered} registered, {found.known} known already, "
            f"{found.incomplete} lack tags (see unknown endpoints)"
        )
