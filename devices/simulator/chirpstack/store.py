"""The objects that ChirpStack keeps in its database: API keys, tenants, applications, profiles, devices, gateways.

They are kept in a JSON file, so that what an application has set up is there after a restart.
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
from chirpstack_api import api
from google.protobuf import json_format, message

Message = TypeVar("Message", bound="message.Message")


class Refused(Exception):
    """What a client gets instead of an answer."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def not_found(key: str) -> Refused:
    return Refused(grpc.StatusCode.NOT_FOUND, f"Object does not exist (id: {key})")


def invalid(text: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def violates(constraint: str) -> Refused:
    """A constraint of the database: ChirpStack passes its error on as INTERNAL."""
    return Refused(grpc.StatusCode.INTERNAL, f"{constraint} violates a constraint of the database")


def parse_uuid(text: str) -> str:
    """The canonical form. Raises Refused."""
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise invalid(f"UUID parsing failed: {text!r}") from error


def parse_eui(text: str, size: int = 8) -> str:
    """Lower-case hex. ChirpStack answers INTERNAL to a bad one, not INVALID_ARGUMENT."""
    try:
        if len(bytes.fromhex(text)) == size:
            return text.lower()
    except ValueError:
        pass  # said below
    raise Refused(grpc.StatusCode.INTERNAL, f"{text!r} is not {size} bytes in hex")


@dataclass
class Row(Generic[Message]):
    """An object with its times (wall clock, UTC)."""

    value: Message
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Table(Generic[Message]):
    def __init__(self, kind: type[Message], changed: Callable[[], None]) -> None:
        self.rows: dict[str, Row[Message]] = {}
        self._kind, self._changed = kind, changed

    def get(self, key: str) -> Row[Message]:
        """Raises Refused."""
        if key not in self.rows:
            raise not_found(key)
        return self.rows[key]

    def add(self, key: str, value: Message) -> None:
        if key in self.rows:
            raise violates("duplicate key value")
        self.rows[key] = Row(value)
        self._changed()

    def change(self, key: str, value: Message) -> None:
        row = self.get(key)
        row.value, row.updated_at = value, datetime.now(UTC)
        self._changed()

    def delete(self, key: str) -> None:
        self.get(key)
        del self.rows[key]
        self._changed()

    def dump(self) -> dict[str, list[Any]]:
        return {
            key: [json_format.MessageToDict(row.value), row.created_at.isoformat(), row.updated_at.isoformat()]
            for key, row in self.rows.items()
        }

    def load(self, document: dict[str, list[Any]]) -> None:
        for key, (value, created, updated) in document.items():
            self.rows[key] = Row(
                json_format.ParseDict(value, self._kind()),
                datetime.fromisoformat(created),
                datetime.fromisoformat(updated),
            )


class Store:
    """`path`: where it is kept, readable by the owner only (it holds keys); None: nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._is_saved = path, False
        self.secret = secrets.token_bytes(32)
        self.api_keys = Table(api.ApiKey, self._touch)
        self.tenants = Table(api.Tenant, self._touch)
        self.applications = Table(api.Application, self._touch)
        self.http_integrations = Table(api.HttpIntegration, self._touch)
        self.device_profiles = Table(api.DeviceProfile, self._touch)
        self.devices = Table(api.Device, self._touch)
        self.device_keys = Table(api.DeviceKeys, self._touch)
        self.gateways = Table(api.Gateway, self._touch)
        if path is not None and path.exists():
            document = json.loads(path.read_text())
            self.secret = bytes.fromhex(document["secret"])
            for name, table in self._tables():
                table.load(document[name])
            self._is_saved = True

    def save(self) -> None:
        """Write it where something has changed."""
        if self._path is None or self._is_saved:
            return
        document: dict[str, Any] = {name: table.dump() for name, table in self._tables()}
        write_private(self._path, json.dumps({"secret": self.secret.hex(), **document}))
        self._is_saved = True

    def delete_application(self, key: str) -> None:
        """With its integration and its devices, as the database cascades."""
        self.applications.delete(key)
        self.http_integrations.rows.pop(key, None)
        for dev_eui in [eui for eui, row in self.devices.rows.items() if row.value.application_id == key]:
            self.delete_device(dev_eui)

    def delete_device(self, dev_eui: str) -> None:
        self.devices.delete(dev_eui)
        self.device_keys.rows.pop(dev_eui, None)

    def delete_profile(self, key: str) -> None:
        self.device_profiles.delete(key)
        for dev_eui in [eui for eui, row in self.devices.rows.items() if row.value.device_profile_id == key]:
            self.delete_device(dev_eui)

    def delete_tenant(self, key: str) -> None:
        self.tenants.delete(key)
        for name in [at for at, row in self.applications.rows.items() if row.value.tenant_id == key]:
            self.delete_application(name)
        for name in [at for at, row in self.device_profiles.rows.items() if row.value.tenant_id == key]:
            self.delete_profile(name)
        for name in [at for at, row in self.gateways.rows.items() if row.value.tenant_id == key]:
            self.gateways.delete(name)
        for name in [at for at, row in self.api_keys.rows.items() if row.value.tenant_id == key]:
            self.api_keys.delete(name)

    def _touch(self) -> None:
        self._is_saved = False

    def _tables(self) -> list[tuple[str, Table[Any]]]:
        return [(name, table) for name, table in vars(self).items() if isinstance(table, Table)]


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    private = path.with_name(path.name + ".private")
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    private.replace(path)
