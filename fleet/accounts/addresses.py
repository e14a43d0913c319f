"""Where a request comes from. Headers are believed only where a proxy that we trust has set them."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from django.conf import settings
from django.http import HttpRequest

UNKNOWN = "unknown"


@lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)


def _parsed(text: str) -> str | None:
    try:
        return str(ip_address(text.strip().strip("[]")))
    except ValueError:
        return None


def _is_trusted(address: str) -> bool:
    parsed = ip_address(address)
    return any(
        parsed.version == network.version and parsed in network
        for network in _networks(tuple(settings.TRUSTED_PROXIES))
    )


def client_address(request: HttpRequest) -> str:
    """The nearest address in front of our own proxies; `unknown` where the server names none.

    X-Forwarded-For is read from the right, for a client can write whatever it likes at its left.
    """
    address = _parsed(request.META.get("REMOTE_ADDR") or "")
    if address is None:
        return UNKNOWN
    for text in reversed((request.META.get("HTTP_X_FORWARDED_FOR") or "").split(",")):
        if not _is_trusted(address) or (before := _parsed(text)) is None:
            break
        address = before
    return address


def neighbourhood(address: str) -> str:
    """What limits count by: an IPv6 customer owns a whole /64, so one of its addresses means nothing."""
    if address == UNKNOWN or ip_address(address).version == 4:
        return address
    return str(ip_network(f"{address}/64", strict=False))
