"""Registering in bulk and making the classes that nodes belong to: all of a request is stored, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import models, transaction

from devices.linker_map import ARENA_NAME, LinkerMapInvalid, MemoryTaken
from devices.linker_map import read as read_linker_map
from devices.models import FirmwareBuild, HardwareProfile, Node
from devices.services import register_node
from fleet.audit.models import record

Row = TypeVar("Row", bound=models.Model)
MAXIMUM_NODES = 1000


class RegistrationRefused(Exception):
    """`errors` holds one {"field", "message", "fix"} for each thing wrong; field begins with the row's number."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        first = f"{self.errors[0]['field']}: {self.errors[0]['message']}"
        return first + (f" And {len(self.errors) - 1} more." if len(self.errors) > 1 else "")


@transaction.atomic
def register_nodes(*, rows: Sequence[Mapping[str, Any]], actor: str) -> list[Node]:
    """Each row has the arguments of register_node, with profile and firmware_build by name. At most MAXIMUM_NODES.

    Raises RegistrationRefused with every row's errors; then none is stored.
    """
    profiles = {profile.name: profile for profile in HardwareProfile.objects.all()}
    builds = {build.name: build for build in FirmwareBuild.objects.all()}
    nodes: list[Node] = []
    errors: list[dict[str, str]] = []
    for index, row in enumerate(rows):
        profile, build = profiles.get(row["profile"]), builds.get(row["firmware_build"])
        if profile is None:
            errors.append(_unknown(f"{index}.profile", row["profile"], "POST /profiles"))
        if row["firmware_build"] and build is None:
            errors.append(_unknown(f"{index}.firmware_build", row["firmware_build"], "POST /firmware-builds"))
        if profile is None or (row["firmware_build"] and build is None):
            continue
        try:
            nodes.append(register_node(**{**row, "profile": profile, "firmware_build": build}))
        except ValidationError as error:
            errors += errors_of(error, prefix=f"{index}.")
    if errors:
        raise RegistrationRefused(errors)
    for node in nodes:
        record(actor=actor, action="node.registered", subject=node, after={"endpoint": node.endpoint})
    return nodes


@transaction.atomic
def create_profile(*, actor: str, **fields: Any) -> HardwareProfile:
    """Fields of HardwareProfile. Raises RegistrationRefused."""
    return _create(HardwareProfile(**fields), "profile.created", actor, fields)


@transaction.atomic
def create_firmware_build(*, actor: str, **fields: Any) -> FirmwareBuild:
    """Fields of FirmwareBuild; operators are kept sorted. Raises RegistrationRefused."""
    fields["operators"] = sorted(set(fields["operators"]))
    return _create(FirmwareBuild(**fields), "firmware_build.created", actor, fields)


def reserve_by_linker_map(
    *, profile: str, data: bytes, region: str, arena: str, dry_run: bool, actor: str
) -> tuple[HardwareProfile, MemoryTaken]:
    """Takes a profile's SRAM and what is reserved of it from the map of its firmware; images are judged on it anew.

    A dry run stores nothing. Raises HardwareProfile.DoesNotExist, and RegistrationRefused for a map that does not tell.
    """
    try:
        taken = read_linker_map(data, region=region, arena=arena or ARENA_NAME)
    except LinkerMapInvalid as error:
        problem = {"field": error.field, "message": f"{error.message}.", "fix": f"{error.fix}."}
        raise RegistrationRefused([problem]) from error
    with transaction.atomic():
        row = HardwareProfile.objects.select_for_update().get(name=profile)
        before = {"sram_bytes": row.sram_bytes, "reserved_sram_bytes": row.reserved_sram_bytes}
        row.sram_bytes, row.reserved_sram_bytes = taken.sram_bytes, taken.reserved_bytes
        try:
            row.full_clean()
        except ValidationError as error:
            raise RegistrationRefused(errors_of(error)) from error
        if not dry_run:
            row.save()
            after = {"sram_bytes": row.sram_bytes, "reserved_sram_bytes": row.reserved_sram_bytes}
            record(actor=actor, action="profile.linker_map", subject=row, before=before, after=after)
    return row, taken


def _create(row: Row, action: str, actor: str, fields: dict[str, Any]) -> Row:
    try:
        row.full_clean()
    except ValidationError as error:
        raise RegistrationRefused(errors_of(error)) from error
    row.save()
    record(actor=actor, action=action, subject=row, after=fields)
    return row


def _unknown(field: str, name: str, where: str) -> dict[str, str]:
    return {"field": field, "message": f"{name!r} is unknown.", "fix": f"Make it first with {where}."}


def errors_of(error: ValidationError, prefix: str = "") -> list[dict[str, str]]:
    """One {"field", "message", "fix"} for each message; `prefix` stands before the field."""
    return [
        {"field": prefix + field.replace("__all__", "row"), "message": message, "fix": "Correct it and send all again."}
        for field, messages in error.message_dict.items()
        for message in messages
    ]
