from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from devices.links.nbiot.gateway import Gateway


def test_the_gateway_does_not_listen_beyond_loopback_unless_told_to() -> None:
    with pytest.raises(CommandError, match="--allow-insecure"):
        call_command("lwm2m", "--bind", "192.0.2.1")


def test_a_bind_address_that_is_none_is_refused() -> None:
    with pytest.raises(CommandError, match="not an IP address"):
        call_command("lwm2m", "--bind", "everywhere")


@pytest.mark.django_db(transaction=True)
def test_the_gateway_ends_with_an_error_when_it_has_to_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def broken_gateway(**options: Any) -> AsyncIterator[Gateway]:
        gateway = Gateway(public="127.0.0.1:1")
        gateway.broken.set()
        yield gateway
        await gateway.close()

    monkeypatch.setattr("devices.management.commands.lwm2m.serve", broken_gateway)
    with pytest.raises(CommandError, match="start me again"):
        call_command("lwm2m")
