"""`manage.py check --deploy`: what is missing before this installation may face the world. Each names its fix."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

_LOCAL = {"localhost", "127.0.0.1", "[::1]", "testserver"}


@register(Tags.security, deploy=True)
def production(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []

    def missing(number: int, what: str, fix: str, *, error: bool = True) -> None:
        found.append((Error if error else Warning)(what, hint=fix, id=f"modelfleet.{'E' if error else 'W'}{number:03}"))

    if not settings.PRODUCTION:
        missing(1, "MODELFLEET_PRODUCTION is not 1: cookies and redirects are made for http.", "Set it to 1.")
    if not os.environ.get("SECRET_KEY"):
        missing(
            2,
            "SECRET_KEY does not come from the environment: each machine would make one of its own, and seal secrets "
            "that the others cannot read.",
            "Set SECRET_KEY to 50 random characters or more, the same for every process.",
        )
    if "*" in settings.ALLOWED_HOSTS or not set(settings.ALLOWED_HOSTS) - _LOCAL:
        missing(
            3,
            f"ALLOWED_HOSTS is {','.join(settings.ALLOWED_HOSTS)}: it names no public host, or every host.",
            "Set it to the host names that browsers use, with commas.",
        )
    url = urlsplit(settings.PUBLIC_URL)
    if url.scheme != "https" or not url.hostname:
        missing(
            4,
            f"PUBLIC_URL is {settings.PUBLIC_URL or 'not set'}, not an https address.",
            "Set it to the address that people and CI use, such as https://fleet.example.com.",
        )
    for variable in ("DATABASE_URL", "REDIS_URL"):
        if not os.environ.get(variable):
            missing(
                5,
                f"{variable} is not set: the embedded servers are for one small machine and the demo.",
                "Name a server that is backed up and kept up to date.",
                error=False,
            )
    found += _signing_key()
    try:
        loopback = ip_address(settings.LWM2M_BIND).is_loopback
    except ValueError:
        missing(8, f"LWM2M_BIND is {settings.LWM2M_BIND}, not an address.", "Set it to 127.0.0.1, say.")
    else:
        if not loopback:
            missing(
                9,
                f"The LwM2M gateway would listen on {settings.LWM2M_BIND} without DTLS: any host could pass for a node.",
                "Set LWM2M_BIND to 127.0.0.1 and put a DTLS proxy in front of it.",
            )
    return found


def _signing_key() -> list[CheckMessage]:
    path = settings.SIGNING_KEY_FILE
    if os.environ.get("MODELFLEET_SIGNING_KEY"):  # beats the file
        return []
    if not path.exists():
        return [
            Error(
                f"There is no signing key at {path}: the first worker would make one that nodes do not trust.",
                hint="Put the key that the nodes know there, or set MODELFLEET_SIGNING_KEY.",
                id="modelfleet.E006",
            )
        ]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return [
            Error(
                f"{path} has mode {mode:04o}: others than its owner may read the key that signs for every node.",
                hint=f"chmod 600 {path}, with the owner that the processes run as.",
                id="modelfleet.E007",
            )
        ]
    return []
