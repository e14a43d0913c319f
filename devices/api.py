"""REST: nodes, hardware profiles and firmware builds. Listing nodes stands in updates.api: its filter knows versions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import File, Form, Path, Router, Schema, Status, UploadedFile
from ninja.errors import HttpError
from pydantic import ConfigDict, Field

from devices.models import FirmwareBuild, HardwareProfile, Node
from devices.registration import (
    MAXIMUM_NODES,
    create_firmware_build,
    create_profile,
    register_nodes,
    reserve_by_linker_map,
)
from fleet.accounts.authentication import actor_of, node_keeper, viewer

router = Router()
nodes = Router(tags=["nodes"])
ProfileName = Annotated[str, Path(pattern="^[-a-zA-Z0-9_]{1,64}$")]
SYMBOL = {"max_length": 128, "pattern": r"^[\w.$]*$"}
Bytes = Annotated[int, Field(ge=0, le=2**31 - 1)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
After = Annotated[int, Field(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Field(ge=1, le=500)]


class Strict(Schema):
    """A misspelt field is an error, never ignored."""

    model_config = ConfigDict(extra="forbid")


class NodeIn(Strict):
    endpoint: str = Field(max_length=64, pattern=r"^[!-~]+$")
    link: Literal["nbiot", "lorawan"]
    profile: str
    firmware_build: str = ""
    site: str = Field("", max_length=64, pattern=r"^[^\x00]*$")
    labels: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,64}$")],
        Annotated[str, Field(max_length=128, pattern=r"^[^\x00]*$")],
    ] = Field({}, max_length=32)
    time_zone: str = Field("", max_length=64, description="IANA name, such as Europe/Berlin; empty: UTC")
    slot_bytes: Bytes | None = None
    sram_bytes: Bytes | None = None
    reserved_sram_bytes: Bytes | None = None


class NodeOut(Schema):
    id: int
    endpoint: str
    link: str
    profile: str = Field(alias="profile.name")
    firmware_build: str | None = Field(None, alias="firmware_build.name")
    site: str
    labels: dict[str, object]
    time_zone: str
    active_digest: str
    standby_digest: str
    sequence: int
    last_seen_at: datetime | None = Field(None, alias="presence.last_seen_at")


class BulkIn(Strict):
    nodes: list[NodeIn] = Field(min_length=1, max_length=MAXIMUM_NODES)


class BulkOut(Schema):
    registered: int
    ids: list[int]


class ProfileIn(Strict):
    name: str
    slot_bytes: Bytes
    sram_bytes: Bytes
    reserved_sram_bytes: Bytes
    core: str = "cortex-m4f"
    chip: str = Field("", max_length=32, pattern=r"^[A-Za-z0-9-]*$")
    clock_hz: int = Field(80_000_000, gt=0, le=2**40)
    runtime: str = "tflm"
    kernel_library: str = "cmsis-nn"
    rtos: str = "zephyr"
    flash_erase_bytes: Bytes = 4096
    flash_write_bytes: Bytes = 8
    arena_fraction: float = 0.70
    alignment: int = Field(16, ge=1, le=4096)
    cache_line_bytes: int = Field(0, ge=0, le=4096)
    slot_read_bytes_per_second: int = Field(40_000_000, gt=0, le=2**40)
    latency_deadline_ms: Bytes | None = None
    battery_joules: float | None = Field(None, gt=0, le=1e9)
    radio_joules_per_kibibyte: float | None = Field(None, gt=0, le=1e6)


class ProfileOut(ProfileIn):
    model_config = ConfigDict(extra="ignore")
    id: int
    arena_limit_bytes: int


class SectionOut(Schema):
    name: str
    address: int
    size: int


class LinkerMapOut(Schema):
    """profile: as it is now, or would be. used_bytes less arena_bytes are reserved; null: the map has no arena."""

    profile: ProfileOut
    stored: bool
    region: str
    used_bytes: int
    arena_bytes: int | None
    reserved_bytes: int
    sections: list[SectionOut]


class FirmwareBuildIn(Strict):
    name: str
    io_hash: str
    operators: list[str] = Field(max_length=256)
    runtime: str = "tflm"
    agent_version: int = Field(1, ge=0, le=32767)
    decoder_profile: str = "bsdiff"
    decoder_ram_bytes: Bytes = 0
    arena_bytes: Bytes | None = None
    forward_error_correction: str = ""
    key_ids: list[str] = Field([], max_length=2)


class FirmwareBuildOut(FirmwareBuildIn):
    """class_hash: 8 hex digits that the firmware is built with; a bundle signed for another class is refused."""

    model_config = ConfigDict(extra="ignore")
    id: int
    class_hash: str


@nodes.get("/{int:node_id}", response=NodeOut, auth=viewer)
def get_node(request: HttpRequest, node_id: Id) -> Node:
    return get_object_or_404(Node.objects.select_related("profile", "firmware_build", "presence"), pk=node_id)


@nodes.post("", response={201: NodeOut}, auth=node_keeper)
def register_node(request: HttpRequest, node: NodeIn) -> Status[Node]:
    return Status(201, register_nodes(rows=[node.dict()], actor=actor_of(request))[0])


@nodes.post("/bulk", response={201: BulkOut}, auth=node_keeper)
def register_many(request: HttpRequest, body: BulkIn) -> Status[dict[str, object]]:
    """All of them or none."""
    made = register_nodes(rows=[node.dict() for node in body.nodes], actor=actor_of(request))
    return Status(201, {"registered": len(made), "ids": [node.pk for node in made]})


@router.get("/profiles", response=list[ProfileOut], auth=viewer, tags=["profiles"])
def list_profiles(request: HttpRequest, after: str = "", limit: Limit = 100) -> object:
    _no_nul(after)
    return HardwareProfile.objects.filter(name__gt=after)[:limit]


@router.post("/profiles", response={201: ProfileOut}, auth=node_keeper, tags=["profiles"])
def add_profile(request: HttpRequest, profile: ProfileIn) -> Status[HardwareProfile]:
    return Status(201, create_profile(actor=actor_of(request), **profile.dict()))


@router.post("/profiles/{name}/linker-map", response=LinkerMapOut, auth=node_keeper, tags=["profiles"])
def read_linker_map(
    request: HttpRequest,
    name: ProfileName,
    map: File[UploadedFile],
    region: str = Form("", **SYMBOL),
    arena: str = Form("", **SYMBOL),
    dry_run: Form[bool] = False,
) -> dict[str, object]:
    """SRAM and what is reserved of it, from the map of GNU ld: all that the linker placed there but the tensor arena.

    `arena`: name of the interpreter's array (`tensor_arena`); `region`: of the memory, where the map leaves it open.
    """
    try:
        profile, taken = reserve_by_linker_map(
            profile=name, data=map.read(), region=region, arena=arena, dry_run=dry_run, actor=actor_of(request)
        )
    except HardwareProfile.DoesNotExist as error:
        raise HttpError(404, f"name: there is no profile {name!r}; make it first with POST /profiles.") from error
    return {"profile": profile, "stored": not dry_run, **asdict(taken), "reserved_bytes": taken.reserved_bytes}


@router.get("/firmware-builds", response=list[FirmwareBuildOut], auth=viewer, tags=["firmware builds"])
def list_firmware_builds(request: HttpRequest, after: str = "", limit: Limit = 100) -> object:
    _no_nul(after)
    return FirmwareBuild.objects.filter(name__gt=after)[:limit]


@router.post("/firmware-builds", response={201: FirmwareBuildOut}, auth=node_keeper, tags=["firmware builds"])
def add_firmware_build(request: HttpRequest, build: FirmwareBuildIn) -> Status[FirmwareBuild]:
    return Status(201, create_firmware_build(actor=actor_of(request), **build.dict()))


def _no_nul(text: str) -> None:
    if "\x00" in text:
        raise HttpError(422, "after: U+0000 is in no name; leave it out.")
