"""Who may call what: the API key in the metadata of a call, and what it opens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from devices.simulator.chirpstack import tokens
from devices.simulator.chirpstack.store import Refused, Row, Store, parse_uuid

_BEARER = "Bearer "


def _unauthenticated(text: str) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, text)


class Caller:
    """`key_id` is None where a call carries no authorization: ChirpStack finds that out only after the arguments."""

    def __init__(self, store: Store, key_id: str | None) -> None:
        self._store, self._key_id = store, key_id

    def may(self, tenant_id: str | None, *, write: bool = False) -> None:
        """Access to what belongs to a tenant; None: to what only an administrator's key may. Raises Refused.

        A valid key without the right gets UNAUTHENTICATED with an empty message, not PERMISSION_DENIED.
        """
        if self._key_id is None:
            raise _unauthenticated("no authorization provided")
        row = self._store.api_keys.rows.get(self._key_id)
        if row is None or (write and row.value.is_read_only):
            raise _unauthenticated("")
        if not row.value.is_admin and (tenant_id is None or row.value.tenant_id != tenant_id):
            raise _unauthenticated("")

    def is_known(self) -> None:
        """Any key will do. Raises Refused."""
        row = None if self._key_id is None else self._store.api_keys.rows.get(self._key_id)
        self.may(row.value.tenant_id if row is not None else None)

    def may_application(self, application_id: str, *, write: bool = False) -> None:
        row = self._store.applications.rows.get(application_id)
        self.may(None if row is None else row.value.tenant_id, write=write)

    def may_profile(self, profile_id: str, *, write: bool = False) -> None:
        row = self._store.device_profiles.rows.get(profile_id)
        self.may(None if row is None else row.value.tenant_id, write=write)

    def may_gateway(self, gateway_id: str, *, write: bool = False) -> None:
        row = self._store.gateways.rows.get(gateway_id)
        self.may(None if row is None else row.value.tenant_id, write=write)

    def may_device(self, dev_eui: str, *, write: bool = False) -> None:
        row = self._store.devices.rows.get(dev_eui)
        if row is None:
            self.may(None, write=write)
        else:
            self.may_application(row.value.application_id, write=write)

    def is_a_key(self) -> None:
        """For what only a person may do. Always raises Refused."""
        self.is_known()
        raise _unauthenticated("")


def caller_of(store: Store, context: Any) -> Caller:
    """Raises Refused for an authorization that is not valid."""
    authorization = dict(context.invocation_metadata() or ()).get("authorization")
    if authorization is None:
        return Caller(store, None)
    if not isinstance(authorization, str) or not authorization.startswith(_BEARER):
        raise _unauthenticated("authorization metadata must be in the format 'Bearer <TOKEN>'")
    try:
        return Caller(store, parse_uuid(tokens.key_id(authorization.removeprefix(_BEARER), store.secret)))
    except (tokens.TokenInvalid, Refused) as error:
        raise _unauthenticated(str(error)) from error


def rpc(method: Callable[[Any, Any, Caller], Any]) -> Callable[[Any, Any, Any], Any]:
    """A gRPC method of a service with `store`, from a plain one that gets the caller and may raise Refused."""

    @functools.wraps(method)
    async def handle(self: Any, request: Any, context: Any) -> Any:
        try:
            return method(self, request, caller_of(self.store, context))
        except Refused as refusal:
            await context.abort(refusal.code, refusal.text)

    return handle


def timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def times(row: Row[Any]) -> dict[str, Timestamp | None]:
    return {"created_at": timestamp(row.created_at), "updated_at": timestamp(row.updated_at)}


def page(rows: list[Any], limit: int, offset: int) -> list[Any]:
    """As SQL does it: a limit of 0 gives no rows, only the count."""
    return rows[offset : offset + limit]


def by_name(rows: list[Row[Any]], search: str) -> list[Row[Any]]:
    wanted = search.casefold()
    return sorted((row for row in rows if wanted in row.value.name.casefold()), key=lambda row: row.value.name)
