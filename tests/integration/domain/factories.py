"""Rows with what the database demands and nothing else; keyword arguments replace any value."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from devices.models import (
    Delivery,
    FirmwareBuild,
    FragmentSession,
    HardwareProfile,
    KnownImage,
    LinkKind,
    NetworkEvent,
    NetworkServer,
    Node,
    OfferedBundle,
    Offering,
    SavedView,
)
from fleet.accounts.models import User
from fleet.blobs.models import Blob, store
from updates.models import Campaign, ModelFamily, ModelImage, ModelVersion, NodeUpdate, Patch, SigningKey, Wave

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_numbers = itertools.count(1)


def unique(prefix: str = "x") -> str:
    return f"{prefix}-{next(_numbers)}"


def unique_digest() -> str:
    """64 hex digits; the number leads, so that the 8-digit prefixes differ too."""
    return f"{next(_numbers):08x}".ljust(64, "0")


def blob() -> Blob:
    return store(unique().encode())


def profile(**values: Any) -> HardwareProfile:
    sizes = {"slot_bytes": 65536, "sram_bytes": 131072, "reserved_sram_bytes": 32768}
    return HardwareProfile.objects.create(**{"name": unique("profile"), **sizes, **values})


def firmware_build(**values: Any) -> FirmwareBuild:
    return FirmwareBuild.objects.create(**{"name": unique("build"), "io_hash": "00c0ffee", **values})


def node(**values: Any) -> Node:
    fallback = {} if "profile" in values else {"profile": profile()}
    return Node.objects.create(**{"endpoint": unique("node"), "link": LinkKind.NBIOT, **fallback, **values})


def known_image(**values: Any) -> KnownImage:
    digest = values.get("digest") or unique_digest()
    return KnownImage.objects.create(**{"digest": digest, "prefix": digest[:8], **values})


def family(**values: Any) -> ModelFamily:
    return ModelFamily.objects.create(**{"name": unique("family"), **values})


def version(**values: Any) -> ModelVersion:
    fallback = {"family": family()} if "family" not in values else {}
    data = {} if "onnx" in values else {"onnx": blob(), "calibration": blob(), "evaluation": blob()}
    return ModelVersion.objects.create(**{"name": unique("v"), "digest": unique_digest(), **fallback, **data, **values})


def image(**values: Any) -> ModelImage:
    facts = {"runtime": "tflm", "precision": "int8", "granularity": "per-channel", "alignment": 16, "size": 20_000}
    more = {"arena_bytes": 9_000, "operators": [], "io_hash": "00c0ffee", "self_test_digest": "0" * 16}
    parents = {} if "version" in values else {"version": version()}
    parts = {"known": known_image(), "blob": blob()}
    return ModelImage.objects.create(**{**facts, **more, **parents, **parts, **values})


def patch(**values: Any) -> Patch:
    ends = {} if "base" in values else {"base": image(), "target": image()}
    return Patch.objects.create(**ends, **({"decoder": "l"} | values))


def campaign(**values: Any) -> Campaign:
    own = {"name": unique("campaign"), "salt": "s", "sequence": next(_numbers), "created_by": "ann"}
    aim = {"version": version()} if not {"version", "reverts"} & values.keys() else {}
    return Campaign.objects.create(**{"revert_preimage_sealed": b"sealed", **own, **aim, **values})


def rollback(of: Campaign, **values: Any) -> Campaign:
    return campaign(**{"kind": "rollback", "reverts": of, **values})


def wave(**values: Any) -> Wave:
    fallback = {} if "campaign" in values else {"campaign": campaign()}
    return Wave.objects.create(**{"index": 0, "percent": 100.0, **fallback, **values})


def node_update(**values: Any) -> NodeUpdate:
    of = values.get("wave") or wave()
    fallback = {} if "node" in values else {"node": node()}
    return NodeUpdate.objects.create(**{"campaign": of.campaign, "wave": of, "changed_at": NOW, **fallback, **values})


def offered_bundle(**values: Any) -> OfferedBundle:
    fallback = {} if "offering" in values else {"offering": Offering.objects.create()}
    return OfferedBundle.objects.create(**{"blob": blob(), **fallback, **values})


def delivery(**values: Any) -> Delivery:
    fallback = {} if "node" in values else {"node": node()}
    times = {"created_at": NOW, "updated_at": NOW}
    own = {"link": LinkKind.NBIOT, "reference": next(_numbers), "token": unique("token"), "command": b"\x01"}
    return Delivery.objects.create(**{**own, **times, **fallback, **values})


def network_server(**values: Any) -> NetworkServer:
    own = {"name": unique("server"), "target": "host:8080", "token_sealed": b"", "event_base_url": "http://host"}
    return NetworkServer.objects.create(**{**own, **values})


def network_event(**values: Any) -> NetworkEvent:
    fallback = {} if "server" in values else {"server": network_server(), "node": node()}
    return NetworkEvent.objects.create(
        **{"kind": "up", "key": unique("up"), "at": NOW, "body": {}, **fallback, **values}
    )


def fragment_session(**values: Any) -> FragmentSession:
    return FragmentSession.objects.create(delivery=delivery(), **values)


def signing_key(**values: Any) -> SigningKey:
    return SigningKey.objects.create(
        **{"key_id": unique_digest()[:8], "public_key": "0" * 64, "added_at": NOW, **values}
    )


def user(**values: Any) -> User:
    return User.objects.create(username=values.pop("username", unique("user")), **values)


def saved_view(**values: Any) -> SavedView:
    return SavedView.objects.create(
        owner=values.pop("owner", None) or user(), name=values.pop("name", "mine"), **values
    )
