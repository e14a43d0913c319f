"""Writes manifest.json, reports.json and patches.json beside itself: `python -m docs.vectors.generate`.

The keys are for tests only: their seeds stand in the file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.agent.patch_codec import PatchRefused, decode
from devices.wire import Cause, HealthReport, NodeState, StateReport, split_health
from docs.vectors.patch_seeds import patch_of, seeds
from updates.patches.manifest import Guard, Manifest, sign_manifest, signed_message
from updates.patches.revert import revert_command, revert_hash
from updates.patches.signing import Ed25519Signer

HERE = Path(__file__).parent
BASE, TARGET = bytes(range(256)) * 4, bytes(reversed(range(256))) * 4
PREIMAGE = bytes(range(16))
CLASS_HASH = bytes.fromhex("c1a55001")
# The order of Ed25519's group: S + ORDER satisfies the equation too, and RFC 8032 (5.1.7) demands to refuse it.
ORDER = 2**252 + 27742317777372353535851937790883648493


def manifest_vectors() -> dict[str, object]:
    signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
    following = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([3] * 32)))
    stranger = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([2] * 32)))
    patch = Manifest(
        model_id=bytes.fromhex("0000002a"),
        base_prefix=hashlib.sha256(BASE).digest()[:8],
        target_digest=hashlib.sha256(TARGET).digest(),
        target_size=len(TARGET),
        sequence=8,
        class_hash=CLASS_HASH,
        codec=1,
        self_test_digest=bytes(range(8)),
        revert_hash=revert_hash(PREIMAGE),
    )
    good = sign_manifest(patch, signer)
    second = sign_manifest(patch, following)
    malleable = int.from_bytes(good[-32:], "little") + ORDER
    cases = {
        "patch": (good, "none"),
        "full image": (sign_manifest(replace(patch, codec=0, base_prefix=b""), signer), "none"),
        "patch for decoder S": (sign_manifest(replace(patch, codec=2), signer), "none"),
        "patch for decoder L": (sign_manifest(replace(patch, codec=3), signer), "none"),
        "signed by the second key": (second, "none"),
        "longest": (
            sign_manifest(
                replace(
                    patch,
                    codec=1,
                    sequence=2**32 - 1,
                    target_size=4096,
                    guard=Guard(1000, (-1000, 1000, -500, 500, 999)),
                ),
                signer,
            ),
            "none",
        ),
        "bit flip in the signature": (good[:-1] + bytes([good[-1] ^ 1]), "bad-signature"),
        "bit flip in the target digest": (good[:40] + bytes([good[40] ^ 1]) + good[41:], "bad-signature"),
        "signature with S + L": (good[:-32] + malleable.to_bytes(32, "little"), "bad-signature"),
        "second key's id over the first key's signature": (good[:8] + following.key_id + good[12:], "bad-signature"),
        "first key's id over the second key's signature": (second[:8] + signer.key_id + second[12:], "bad-signature"),
        "unknown key": (sign_manifest(patch, stranger), "unknown-key"),
        "wrong class": (sign_manifest(replace(patch, class_hash=bytes(4)), signer), "wrong-class"),
        "wrong base": (sign_manifest(replace(patch, base_prefix=bytes(8)), signer), "wrong-base"),
        "lower sequence": (sign_manifest(replace(patch, sequence=6), signer), "lower-sequence"),
        "replay": (sign_manifest(replace(patch, sequence=7), signer), "lower-sequence"),
        "unknown codec": (sign_manifest(replace(patch, codec=9), signer), "unknown-codec"),
        "larger than the slot": (sign_manifest(replace(patch, target_size=4097), signer), "no-memory"),
        "tagged": (b"\xd2" + good, "bad-format"),
        "a byte follows": (good + b"\0", "bad-format"),
        "truncated": (good[:-1], "bad-format"),
        "empty": (b"", "bad-format"),
    }
    return {
        "keys": [
            {"seed": seed.hex(), "public_key": key.public_key.hex(), "key_id": key.key_id.hex()}
            for seed, key in ((bytes([1] * 32), signer), (bytes([3] * 32), following))
        ],
        "fields": _fields(patch),
        "payload": patch.payload().hex(),
        "signed_message": signed_message(patch.payload()).hex(),
        "revert": {"preimage": PREIMAGE.hex(), "command": revert_command(PREIMAGE).hex()},
        "node": {
            "class_hash": CLASS_HASH.hex(),
            "active_image": BASE.hex(),
            "highest_sequence": 7,
            "slot_size": 4096,
            "codecs": [0, 1, 2, 3],
        },
        "cases": [
            {"name": name, "manifest": data.hex(), "verdict": verdict} for name, (data, verdict) in cases.items()
        ],
    }


def _fields(manifest: Manifest) -> dict[str, object]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(manifest).items()}


def report_vectors() -> dict[str, object]:
    states = [
        StateReport(NodeState.IDLE, Cause.NONE, b"\x01\x02\x03\x04", bytes(4), 0),
        StateReport(NodeState.CONFIRMED, Cause.NONE, b"\xaa\xbb\xcc\xdd", b"\x01\x02\x03\x04", 8),
        StateReport(NodeState.REJECTED, Cause.WRONG_CLASS, b"\x01\x02\x03\x04", bytes(4), 255),
    ]
    health = HealthReport(
        active_prefix=b"\xaa\xbb\xcc\xdd",
        inferences=123456,
        class_counts=(100000, 20000, 3456),
        low_confidence=77,
        out_of_bounds=3,
        fallbacks=2,
        shadow_disagreements=19,
        deadline_misses=0,
        p99_latency_us=41000,
        resets=1,
        sample_rate_error_ppm=-29700,
        battery_mv=3588,
    )
    return {
        "states": [
            {
                "state": report.state.name.lower(),
                "cause": report.cause.label,
                "active_prefix": report.active_prefix.hex(),
                "standby_prefix": report.standby_prefix.hex(),
                "sequence_low": report.sequence_low,
                "bytes": report.encode().hex(),
            }
            for report in states
        ],
        "health": _health(health),
        "health_with_arena": _health(replace(health, arena_used_bytes=55_412)),
    }


def _health(report: HealthReport) -> dict[str, object]:
    fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(report).items()}
    if not report.arena_used_bytes:  # the first layout has no such field
        del fields["arena_used_bytes"]
    return {
        "fields": fields,
        "bytes": report.encode().hex(),
        "parts_36": [part.hex() for part in split_health(report, report_id=5, part_bytes=36)],
        "parts_11": [part.hex() for part in split_health(report, report_id=6, part_bytes=11)],
    }


def patch_vectors() -> dict[str, object]:
    """Every kind of op in both profiles; then patches that a decoder must refuse or whose target has a wrong digest."""
    good, bad = [], []
    for seed in seeds():
        name, profile, base, target, ops = seed
        patch = patch_of(seed)
        fields = [{**asdict(op), "kind": op.kind.name.lower()} for op in ops]
        good.append(
            {
                "name": name,
                "profile": profile.name,
                "base": base.hex(),
                "target": target.hex(),
                "ops": fields,
                "patch": patch.hex(),
            }
        )
        for what, damaged in (
            ("a bit flipped in the stream", patch[:20] + bytes([patch[20] ^ 16]) + patch[21:]),
            ("cut off", patch[: len(patch) // 2]),
            ("another version", bytes([patch[0] + 2]) + patch[1:]),
            ("followed by other bytes", patch + b"followed"),
        ):
            try:
                decode(base, damaged)
            except PatchRefused:
                bad.append({"name": f"{name}, {what}", "base": base.hex(), "patch": damaged.hex()})
            else:
                raise RuntimeError(f"{name}, {what}: is not refused")
    return {"good": good, "bad": bad}


def render(vectors: dict[str, object]) -> str:
    return json.dumps(vectors, indent=1) + "\n"


if __name__ == "__main__":
    (HERE / "manifest.json").write_text(render(manifest_vectors()))
    (HERE / "reports.json").write_text(render(report_vectors()))
    (HERE / "patches.json").write_text(render(patch_vectors()))
