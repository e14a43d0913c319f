"""What a node will say to a manifest: the rules of the node in the server's words, to plan with and to test against."""

from __future__ import annotations

from dataclasses import dataclass

from updates.patches.codec import Codec
from updates.patches.manifest import KeyUnknown, ManifestInvalid, SignatureInvalid, decode_manifest
from updates.patches.signing import TrustedKeys


@dataclass(frozen=True)
class NodeFacts:
    """What a node judges by: class hash (4 bytes), SHA-256 of its active image, highest sequence, slot bytes."""

    class_hash: bytes
    active_digest: bytes
    highest_sequence: int
    slot_size: int
    codecs: frozenset[int]


def node_verdict(signed: bytes, keys: TrustedKeys, node: NodeFacts) -> str:
    """ "none" where the node accepts, else the name of the cause, in the order in which the node checks."""
    try:
        manifest = decode_manifest(signed, keys)
    except KeyUnknown:
        return "unknown-key"
    except SignatureInvalid:
        return "bad-signature"
    except ManifestInvalid:
        return "bad-format"
    if manifest.class_hash != node.class_hash:
        return "wrong-class"
    if manifest.sequence <= node.highest_sequence:
        return "lower-sequence"
    if manifest.codec != Codec.FULL_IMAGE and manifest.codec not in node.codecs:
        return "unknown-codec"
    if manifest.base_prefix and node.active_digest[: len(manifest.base_prefix)] != manifest.base_prefix:
        return "wrong-base"
    return "none" if manifest.target_size <= node.slot_size else "no-memory"
