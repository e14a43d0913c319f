"""ChirpStack v4 for one region on a real gRPC socket, with its gateways and the air around them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from chirpstack_api import api

from devices.simulator.chirpstack import tokens
from devices.simulator.chirpstack.air import Air
from devices.simulator.chirpstack.application_service import ApplicationService
from devices.simulator.chirpstack.device_service import DeviceService
from devices.simulator.chirpstack.events import Events
from devices.simulator.chirpstack.gateway import Gateway, GatewaySpec
from devices.simulator.chirpstack.network_server import NetworkServer, Windows
from devices.simulator.chirpstack.other_services import (
    DeviceProfileService,
    GatewayService,
    InternalService,
    TenantService,
)
from devices.simulator.chirpstack.publisher import Faults, Publisher
from devices.simulator.chirpstack.store import Store, write_private
from devices.simulator.chirpstack.timeline import Timeline
from devices.simulator.clock import Clock

_SERVICES: tuple[tuple[Any, Any], ...] = (
    (DeviceService, api.add_DeviceServiceServicer_to_server),
    (ApplicationService, api.add_ApplicationServiceServicer_to_server),
    (DeviceProfileService, api.add_DeviceProfileServiceServicer_to_server),
    (TenantService, api.add_TenantServiceServicer_to_server),
    (GatewayService, api.add_GatewayServiceServicer_to_server),
    (InternalService, api.add_InternalServiceServicer_to_server),
)


class ChirpStack:
    """Made and used inside of one running event loop, from `start` to `stop`."""

    def __init__(
        self,
        *,
        gateways: Sequence[GatewaySpec] = (),
        windows: Windows | None = None,
        faults: Faults | None = None,
        time_scale: float = 1.0,
        seed: int = 1,
        directory: Path | None = None,
    ) -> None:
        """`directory`: objects and the token are kept there; None: in memory only."""
        self._directory = directory
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self.store = Store(None if directory is None else directory / "chirpstack.json")
        self.clock = Clock(time_scale)
        self.timeline = Timeline(self.clock)
        self.gateways = {spec.gateway_id.lower(): Gateway(spec) for spec in gateways}
        self.air = Air(self.timeline, self.gateways, random.Random(f"{seed}/air"))
        self.publisher = Publisher(faults or Faults(), random.Random(f"{seed}/publisher"))
        self.network = NetworkServer(
            self.store,
            Events(self.store, self.publisher.post),
            self.air,
            self.timeline,
            random.Random(f"{seed}/network"),
            windows=windows or Windows(),
        )
        self._server = grpc.aio.server()
        for service, add in _SERVICES:
            add(service(self.store, self.network), self._server)
        self.port = 0
        self.token = self._administrator_token()

    async def start(self, address: str = "127.0.0.1:0") -> None:
        """Listen; `port` is then the real one. Raises OSError where the address is taken."""
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"{address}: cannot be listened on") from error
        await self._server.start()

    async def stop(self) -> None:
        self.timeline.stop()
        await self._server.stop(grace=0)
        self.publisher.close()
        self.store.save()

    def create_api_key(self, name: str, *, tenant_id: str = "") -> str:
        """The token of a new key: of an administrator, or of one tenant. What `chirpstack create-api-key` does."""
        key = api.ApiKey(id=str(uuid.uuid4()), name=name, is_admin=not tenant_id, tenant_id=tenant_id)
        self.store.api_keys.add(key.id, key)
        return tokens.issue(key.id, self.store.secret)

    def _administrator_token(self) -> str:
        """The same one after a restart, in the file `token` that only the owner may read."""
        for key_id, row in self.store.api_keys.rows.items():
            if row.value.name == "simulator":
                return tokens.issue(key_id, self.store.secret)
        token = self.create_api_key("simulator")
        if self._directory is not None:
            write_private(self._directory / "token", token + "\n")
            self.store.save()
        return token
