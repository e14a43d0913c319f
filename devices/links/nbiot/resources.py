"""The gateway's CoAP resources: /rd, /dp and /b. What follows from a request is decided in the gateway."""

from __future__ import annotations

import structlog
from aiocoap import BAD_REQUEST, CHANGED, CONTENT, CREATED, DELETED, FORBIDDEN, NOT_FOUND, SERVICE_UNAVAILABLE, Message
from aiocoap.error import ConstructionRenderableError
from aiocoap.resource import PathCapable, Resource, Site

from devices.links.nbiot.blocks import BadBlock, cut_block
from devices.links.nbiot.gateway import Gateway, UnknownNode
from devices.links.nbiot.registry import BadRegistration, has_agent, parse_registration
from devices.links.nbiot.senml import BadPack, parse_reports
from devices.links.nbiot.store import DatabaseDown

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 30
LINKS_BYTES_MAX = 8192


class _Answer(ConstructionRenderableError):
    """An error answer with a diagnostic text (RFC 7252 5.5.2)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Guarded(Resource):
    """Answers 5.03 while PostgreSQL is away: the node keeps what it has and asks again."""

    async def render(self, request: Message) -> Message:
        try:
            return await super().render(request)
        except DatabaseDown as error:
            log.warning("lwm2m.unavailable", reason=str(error))
            return Message(code=SERVICE_UNAVAILABLE, max_age=RETRY_AFTER_S)
        except (BadRegistration, BadPack, BadBlock) as error:
            log.info("lwm2m.bad-request", address=request.remote.hostinfo, reason=str(error))
            raise _Answer(BAD_REQUEST, str(error)) from error


class Register(_Guarded):
    """POST /rd (LwM2M Core 6.2.1)."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    async def render_post(self, request: Message) -> Message:
        if len(request.payload) > LINKS_BYTES_MAX:
            raise BadRegistration(f"payload: must be at most {LINKS_BYTES_MAX} bytes")
        registration = parse_registration(request.opt.uri_query, request.payload)
        try:
            session = await self._gateway.register(registration, request.remote)
        except UnknownNode:
            raise _Answer(FORBIDDEN, "ep: not registered here, ask the operator") from None
        return Message(code=CREATED, location_path=("rd", session.location))


class Registered(_Guarded, PathCapable):
    """POST and DELETE /rd/<location> (LwM2M Core 6.2.2, 6.2.3)."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    async def render_post(self, request: Message) -> Message:
        session = self._gateway.registry.by_location.get("/".join(request.opt.uri_path))
        if session is None:
            return Message(code=NOT_FOUND)
        agent = has_agent(request.payload) if request.payload else None
        self._gateway.update(session, request.remote, request.opt.uri_query, agent=agent)
        return Message(code=CHANGED)

    async def render_delete(self, request: Message) -> Message:
        session = self._gateway.registry.by_location.get("/".join(request.opt.uri_path))
        if session is None:
            return Message(code=NOT_FOUND)
        self._gateway.registry.forget(session)
        return Message(code=DELETED)


class Sent(_Guarded):
    """POST /dp: the Send operation (LwM2M Core 6.4.5). 4.04 sends a node that nobody knows here back to /rd."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    async def render_post(self, request: Message) -> Message:
        session = self._gateway.registry.at(request.remote)
        if session is None:
            return Message(code=NOT_FOUND)
        await self._gateway.reported(session, parse_reports(request.payload))
        return Message(code=CHANGED)


class Bundles(_Guarded, PathCapable):
    """GET /b/<token>: stateless Block2. Whoever knows the token may pull, from any address."""

    def __init__(self, gateway: Gateway, *, size_exponent_max: int) -> None:
        super().__init__()
        self._gateway, self._size_exponent_max = gateway, size_exponent_max

    async def needs_blockwise_assembly(self, request: Message) -> bool:
        return False

    async def render_get(self, request: Message) -> Message:
        transfer = await self._gateway.transfers.find("/".join(request.opt.uri_path))
        if transfer is None:
            return Message(code=NOT_FOUND)
        asked = request.opt.block2
        block = cut_block(
            transfer.body,
            number=asked.block_number if asked else 0,
            size_exponent=asked.size_exponent if asked else self._size_exponent_max,
            size_exponent_max=self._size_exponent_max,
        )
        await self._gateway.served(transfer, block)
        return Message(
            code=CONTENT,
            payload=block.payload,
            etag=transfer.etag,
            content_format=42,
            block2=(block.number, block.more, block.size_exponent),
            size2=len(transfer.body) if block.offset == 0 else None,
        )


def make_site(gateway: Gateway, *, size_exponent_max: int) -> Site:
    """A site hands a request for exactly /rd only to a plain resource, those below it only to a path-capable one."""
    site = Site()
    site.add_resource(["rd"], Register(gateway))
    site.add_resource(["rd"], Registered(gateway))
    site.add_resource(["dp"], Sent(gateway))
    site.add_resource(["b"], Bundles(gateway, size_exponent_max=size_exponent_max))
    return site
