from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command


def test_the_gateway_does_not_listen_beyond_loopback_unless_told_to() -> None:
    with pytest.raises(CommandError, match="--allow-insecure"):
        call_command("lwm2m", "--bind", "192.0.2.1")


def test_a_bind_address_that_is_none_is_refused() -> None:
    with pytest.raises(CommandError, match="not an IP address"):
        call_command("lwm2m", "--bind", "everywhere")
