"""Real rows for tests, with the least that each must have. Every value can be given; names count up."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.contrib.auth.hashers import make_password

from devices.models import FirmwareBuild, HardwareProfile, LinkKind, Node, NodePresence
from devices.services import register_image
from fleet.accounts.models import Role, User
from fleet.blobs.models import store
from fleet.sealing import seal
from updates.campaigns.plan import REVERT_PURPOSE, hash_of, next_sequence
from updates.models import (
    Campaign,
    Fit,
    ModelFamily,
    ModelImage,
    ModelVersion,
    NodeUpdate,
    Patch,
    Tally,
    UpdateEvent,
    ValidationReport,
    Wave,
)
from updates.patches.revert import PREIMAGE_BYTES
from updates.states import CampaignState, NodeUpdateState, PatchState, VersionState, WaveState

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
IO_HASH = "0badcafe"
OPERATORS = ["CONV_2D", "FULLY_CONNECTED", "SOFTMAX"]
PASSWORD = "a long enough password"
_numbers = itertools.count(1)


def make_user(role: Role = Role.VIEWER, **fields: Any) -> User:
    username = fields.pop("username", f"{role}-{next(_numbers)}")
    return User.objects.create(username=username, password=_hashed(), role=role, **fields)


@cache
def _hashed() -> str:
    # Once a run: the hash is made to take long.
    return make_password(PASSWORD)


def make_profile(**fields: Any) -> HardwareProfile:
    defaults = {
        "name": f"profile-{next(_numbers)}",
        "slot_bytes": 128 * 1024,
        "sram_bytes": 128 * 1024,
        "reserved_sram_bytes": 40 * 1024,
    }
    return HardwareProfile.objects.create(**defaults | fields)


def make_firmware(**fields: Any) -> FirmwareBuild:
    defaults = {"name": f"firmware-{next(_numbers)}", "operators": OPERATORS, "io_hash": IO_HASH}
    return FirmwareBuild.objects.create(**defaults | fields)


def make_node(*, seen_at: datetime | None = None, **fields: Any) -> Node:
    """With `seen_at`, the node has been heard of then."""
    if "profile" not in fields:
        fields["profile"] = make_profile()
    defaults = {"endpoint": f"node-{next(_numbers):05}", "link": LinkKind.NBIOT, "site": "plant-3"}
    node = Node.objects.create(**defaults | fields)
    if seen_at is not None:
        NodePresence.objects.create(node=node, last_seen_at=seen_at, report_interval_s=3600.0, battery_percent=71)
    return node


def make_family(**fields: Any) -> ModelFamily:
    defaults = {"name": f"family-{next(_numbers)}", "class_names": ["rest", "press", "row"]}
    return ModelFamily.objects.create(**defaults | fields)


def make_slice(name: str = "clean", **fields: Any) -> dict[str, Any]:
    """One slice as the pipeline stores it: 300 samples in 3 classes, of which int8 loses two more than fp32."""
    return {
        "name": name,
        "verdict": "passed",
        "n": 300,
        "accuracy_fp32": 0.97,
        "accuracy_int8": 0.9633,
        "error_fp32": None,
        "error_int8": None,
        "agreement": 0.99,
        "sqnr_db": 31.2,
        "worst_class": 1,
        "worst_class_n": 100,
        "worst_recall_fp32": 0.96,
        "worst_recall_int8": 0.94,
        "worst_recall_interval": [0.876, 0.972],
        "confusion_fp32": [[98, 1, 1], [2, 96, 2], [1, 2, 97]],
        "confusion_int8": [[98, 1, 1], [3, 94, 3], [1, 2, 97]],
        "flip_count": 2,
        "flips": [
            {"index": 17, "label": 1, "fp32": 1, "int8": 0},
            {"index": 203, "label": 1, "fp32": 1, "int8": 2},
        ],
        "reasons": [],
    } | fields


def make_version(
    *, profiles: Sequence[HardwareProfile] = (), arena_bytes: int = 57_472, size: int = 99_240, **fields: Any
) -> ModelVersion:
    """Ready, with one validated image and its fit on each of `profiles`; in another `state`, without an image."""
    number = next(_numbers)
    files = {name: store(f"{name} {number}".encode()) for name in ("onnx", "calibration", "evaluation")}
    if "family" not in fields:
        fields["family"] = make_family()
    defaults: dict[str, Any] = {
        "name": f"1.{number}.0",
        "digest": hashlib.sha256(f"version {number}".encode()).hexdigest(),
        "state": VersionState.READY,
        "uploaded_by": "ci",
    }
    version = ModelVersion.objects.create(**defaults | files | fields)
    if version.state == VersionState.READY:
        image = make_image(version, arena_bytes=arena_bytes, size=size)
        ValidationReport.objects.create(image=image, verdict="passed", slices=[make_slice()], reasons=[])
        for profile in profiles:
            make_fit(image, profile)
    return version


def make_image(version: ModelVersion, **fields: Any) -> ModelImage:
    data = f"image {next(_numbers)}".encode()
    defaults: dict[str, Any] = {
        "runtime": "tflm",
        "precision": "int8",
        "granularity": "fc-per-tensor",
        "alignment": 16,
        "size": 99_240,
        "arena_bytes": 57_472,
        "operators": OPERATORS,
        "io_hash": IO_HASH,
        "self_test_digest": "00" * 8,
    }
    known = register_image(hashlib.sha256(data).hexdigest())
    return ModelImage.objects.create(version=version, known=known, blob=store(data), **defaults | fields)


def make_fit(image: ModelImage, profile: HardwareProfile) -> Fit:
    """By the arena alone."""
    limit, need = profile.arena_limit_bytes, image.arena_bytes
    reasons = [] if need <= limit else [f"The arena needs {need} bytes, {limit} are allowed."]
    numbers = {
        "profile": profile.name,
        "image_bytes": image.size,
        "slot_bytes": profile.slot_bytes,
        "arena_bytes": need,
        "arena_limit_bytes": limit,
        "evidence": "tflm-bisected-x86",
    }
    return Fit.objects.create(image=image, profile=profile, fits=not reasons, numbers=numbers, reasons=reasons)


def make_patch(base: ModelVersion, target: ModelVersion, **fields: Any) -> Patch:
    """Between the first images of two versions; ready with 1000 bytes unless another `state` is given."""
    defaults: dict[str, Any] = {
        "state": PatchState.READY,
        "decoder": "bsdiff",
        "codec": 1,
        "build_ms": 120,
        "built_at": NOW,
    }
    if fields.get("state", PatchState.READY) != PatchState.READY:
        defaults = {"decoder": "bsdiff"}
    elif "blob" not in fields:
        defaults["blob"] = store(f"{next(_numbers):1000}".encode())
    ends = {"base": base.images.order_by("id").first(), "target": target.images.order_by("id").first()}
    return Patch.objects.create(**ends | defaults | fields)


def make_campaign(
    *,
    version: ModelVersion | None = None,
    waves: Sequence[Sequence[tuple[Node, str]]] = ((),),
    wave_states: Sequence[str] = (),
    **fields: Any,
) -> Campaign:
    """A campaign whose waves hold (node, state of its update) pairs, with tallies, one event each, and a plan."""
    version = version or make_version()
    image = version.images.order_by("id").first()
    assert image is not None
    nodes = [node for wave in waves for node, _ in wave]
    plan = make_plan(image, [len(wave) for wave in waves], len(nodes))
    defaults: dict[str, Any] = {
        "name": f"campaign {next(_numbers)}",
        "version": version,
        "state": CampaignState.RUNNING,
        "gate": {"maximum_failure_percent": 2.0},
        "plan": plan,
        "plan_hash": hash_of(plan),
        "salt": secrets.token_hex(16),
        "sequence": next_sequence(),
        "revert_preimage_sealed": seal(secrets.token_bytes(PREIMAGE_BYTES), purpose=REVERT_PURPOSE),
        "created_by": "operator",
        "started_at": NOW,
    }
    values = defaults | fields
    if values["state"] != CampaignState.DRAFT:
        values.setdefault("approved_hash", values["plan_hash"])
        values.setdefault("approved_by", "approver")
    campaign = Campaign.objects.create(**values)
    for index, members in enumerate(waves):
        state = wave_states[index] if index < len(wave_states) else WaveState.OPEN if index == 0 else WaveState.WAITING
        wave = Wave.objects.create(
            campaign=campaign, index=index, percent=100 * (index + 1) / len(waves), soak_s=48 * 3600, state=state
        )
        _fill(campaign, wave, members, image)
    return campaign


def _fill(campaign: Campaign, wave: Wave, members: Sequence[tuple[Node, str]], image: ModelImage) -> None:
    counts = dict.fromkeys(NodeUpdateState.values, 0)
    for node, state in members:
        counts[state] += 1
        fell_short = state in ("failed", "rejected", "silent", "reverted", "skipped", "cancelled")
        update = NodeUpdate.objects.create(
            campaign=campaign,
            wave=wave,
            node=node,
            image=None if state == "skipped" else image,
            state=state,
            cause=CAUSES[state] if fell_short else "",
            base_digest=node.active_digest,
            received_bytes=4096 if state == "transferring" else 0,
            total_bytes=8192,
            changed_at=NOW,
        )
        UpdateEvent.objects.create(
            at=NOW,
            campaign=campaign,
            node=node,
            node_update_id=update.pk,
            from_state="planned",
            to_state=state,
            cause=update.cause,
        )
    Tally.objects.bulk_create(Tally(wave=wave, state=state, count=count) for state, count in counts.items())


CAUSES = {
    "failed": "self-test-failed",
    "rejected": "wrong-base",
    "silent": "no-contact",
    "reverted": "no-server-contact",
    "skipped": "does-not-fit",
    "cancelled": "aborted",
}


def make_plan(image: ModelImage, wave_nodes: Sequence[int], nodes: int, **fields: Any) -> dict[str, Any]:
    return {
        "nodes": nodes,
        "reached": nodes,
        "refused": [],
        "images": [{"image": image.pk, "version": image.version.name, "nodes": nodes, "bytes": image.size}],
        "bases": [{"base": "", "nodes": nodes, "patch_bytes": None, "full_bytes": image.size}],
        "bytes_full": nodes * image.size,
        "bytes_sent": nodes * 8192,
        "frames": nodes * 16,
        "pending_patches": 0,
        "hours": 0.4,
        "waves": [
            {"index": index, "percent": 100 * (index + 1) / len(wave_nodes), "nodes": count, "soak_s": 48 * 3600}
            for index, count in enumerate(wave_nodes)
        ],
        "members": "00" * 32,
    } | fields


def make_verdict(decision: str = "pass", **fields: Any) -> dict[str, Any]:
    """What the gate writes into a wave."""
    return {
        "decision": decision,
        "reason": "1 of 40 updates failed, limit 2 %",
        "completed": 40,
        "failures": 1,
        "silent": 2,
        "failure_low_percent": 0.44,
        "failure_high_percent": 12.88,
        "policy": {"maximum_failure_percent": 2.0, "maximum_silent_percent": 20.0, "minimum_sample": 20},
    } | fields
