"""Who is registered and awake (OMA-TS-LightweightM2M_Core 6.2 Registration, 6.5 Queue Mode).

No I/O; times are seconds of a monotonic clock, given by the caller.

Held in memory only: a gateway that was killed answers 4.04 to the next Update, and the node registers again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ENDPOINT_CHARACTERS_MAX = 64
DEFAULT_LIFETIME_S = 86_400
_AGENT_LINK = re.compile(r"</26241(/0)?>")
_VERSION = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")


class BadRegistration(ValueError):
    """The query or the payload of a Register or Update breaks LwM2M; the message names the parameter."""


@dataclass(frozen=True)
class Registration:
    endpoint: str
    lifetime_s: int
    version: tuple[int, int]
    queue_mode: bool
    has_agent: bool  # the client has object 26241

    @property
    def sends(self) -> bool:
        """Whether the client knows the Send operation, which came with LwM2M 1.1."""
        return self.version >= (1, 1)


def _parameters(query: Sequence[str]) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in query)


def _lifetime(parameters: dict[str, str], default: int) -> int:
    text = parameters.get("lt", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) > 0):
        raise BadRegistration("lt: must be seconds, 1..9999999999")
    return int(text)


def has_agent(links: bytes) -> bool:
    """Whether the object list of a client (RFC 6690) names object 26241."""
    return _AGENT_LINK.search(links.decode("utf-8", "replace")) is not None


def parse_registration(query: Sequence[str], links: bytes) -> Registration:
    """Register of LwM2M 1.0 (`b=UQ`) and of 1.1 and later (`Q`). Raises BadRegistration."""
    parameters = _parameters(query)
    endpoint = parameters.get("ep", "")
    if not (0 < len(endpoint) <= ENDPOINT_CHARACTERS_MAX and endpoint.isprintable()):
        raise BadRegistration(f"ep: must be 1..{ENDPOINT_CHARACTERS_MAX} printable characters")
    version = parameters.get("lwm2m", "1.0")
    if not _VERSION.fullmatch(version):
        raise BadRegistration("lwm2m: must be a version such as 1.1")
    major, _, minor = version.partition(".")
    if int(major) != 1:
        raise BadRegistration("lwm2m: this server speaks 1.0 to 1.2")
    return Registration(
        endpoint=endpoint,
        lifetime_s=_lifetime(parameters, DEFAULT_LIFETIME_S),
        version=(int(major), int(minor)),
        queue_mode="Q" in parameters or "Q" in parameters.get("b", "U"),
        has_agent=has_agent(links),
    )


@dataclass(eq=False)
class Session:
    """A registration, and what is known of the node's current window."""

    location: str
    node_id: int
    registration: Registration
    lifetime_s: float
    remote: Any  # aiocoap's endpoint address: an object of this process, replaced at each Update
    holds: str  # the digest that the node said last, as far as PostgreSQL knows
    awake_until: float = 0.0
    expires_at: float = 0.0
    # The deliveries that this window has dealt with: they wait for the next one, whatever came of it.
    handled: set[int] = field(default_factory=set)
    read_state: bool = True
    reports: list[bytes] = field(default_factory=list)  # `confirmed`, waiting for the whole digest
    offered_base: dict[int, str] = field(default_factory=dict)
    # Held by whoever talks to the node, so that a state that was read still holds when it is acted on.
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    visit: asyncio.Task[None] | None = None

    @property
    def visited(self) -> bool:
        return self.visit is not None and not self.visit.done()


class Registry:
    """Sessions by location, node and address; one a node, so that the fleet bounds it."""

    def __init__(self, *, awake_s: float, time_scale: float) -> None:
        self._awake_s = awake_s
        self._time_scale = time_scale
        self.by_location: dict[str, Session] = {}
        self.by_node: dict[int, Session] = {}
        self._by_remote: dict[Any, Session] = {}

    def register(self, *, node_id: int, registration: Registration, remote: Any, holds: str, now: float) -> Session:
        """A new location each time; an older registration of the node ends."""
        if older := self.by_node.get(node_id):
            self.forget(older)
        session = Session(
            location=secrets.token_urlsafe(9),
            node_id=node_id,
            registration=registration,
            lifetime_s=registration.lifetime_s,
            remote=remote,
            holds=holds,
        )
        self.by_location[session.location] = self.by_node[node_id] = session
        self.update(session, remote=remote, query=(), now=now)
        return session

    def update(self, session: Session, *, remote: Any, query: Sequence[str], now: float) -> None:
        """Raises BadRegistration and changes nothing for a bad lifetime."""
        session.lifetime_s = _lifetime(_parameters(query), int(session.lifetime_s))
        if self._by_remote.get(session.remote) is session:
            del self._by_remote[session.remote]
        session.remote = remote
        self._by_remote[remote] = session
        session.expires_at = now + session.lifetime_s / self._time_scale + self._awake_s
        self.open_window(session, now=now)

    def open_window(self, session: Session, *, now: float) -> None:
        """A Register, Update or Send: what could not be done in the last window may be tried again."""
        session.handled.clear()
        session.read_state = session.read_state or not session.registration.sends
        self.heard(session, now=now)

    def heard(self, session: Session, *, now: float) -> None:
        """Any exchange keeps the node awake for as long again."""
        session.awake_until = now + self._awake_s

    def forget(self, session: Session) -> None:
        self.by_location.pop(session.location, None)
        if self.by_node.get(session.node_id) is session:
            del self.by_node[session.node_id]
        if self._by_remote.get(session.remote) is session:
            del self._by_remote[session.remote]
        if session.visit is not None:
            session.visit.cancel()

    def at(self, remote: Any) -> Session | None:
        return self._by_remote.get(remote)

    def awake(self, *, now: float) -> list[Session]:
        return [session for session in self.by_location.values() if session.awake_until > now]

    def expire(self, *, now: float) -> int:
        """Forgets registrations whose lifetime is over; their next Update is answered 4.04."""
        over = [session for session in self.by_location.values() if session.expires_at <= now]
        for session in over:
            self.forget(session)
        return len(over)
