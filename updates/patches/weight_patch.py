"""Builds the smallest patch that a microcontroller can decode: docs/patch-format.md.

The encoder prices sequences of ops by coding them with the node's own model and keeps the smallest patch, which it
decodes again before it lets it go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from devices.agent.patch_codec import Op, OpKind, PatchRefused, Profile, decode, encode
from updates.patches.layout import Layout, LayoutInvalid, check_layout
from updates.patches.matching import (
    REPEATS_WORTH,
    aligned_segments,
    bsdiff_segments,
    in_place,
    merged,
    target_bytes,
    tensor_ops,
    with_repeats,
)
from updates.patches.tflite_layout import is_tflite, tflite_layout

IMAGE_BYTES_MAX = 1 << 24
# What an op that is not like its neighbours costs, in bits.
_CHANGE_OF_KIND = 4
# Above this share of the target a patch may be worse than an image without a base.
_POOR = 0.5
# Above so many bits a byte a tensor may be better off without its base.
_POOR_BITS = 3
_NOT_IN_S = {OpKind.LINEAR, OpKind.INTEGERS_SCALED}


class PatchNotProved(Exception):
    """The patch does not decode to the target: a defect of the codec, so it is not used."""


@dataclass(frozen=True)
class WeightPatch:
    """`ops` made `data`; `bits` is what each of them took; `way` names the matching that won."""

    data: bytes
    way: str
    ops: tuple[Op, ...]
    bits: tuple[int, ...]


def encode_patch(
    base: bytes, target: bytes, *, profile: Profile, layouts: tuple[Layout, Layout] | None = None
) -> WeightPatch:
    """The smallest patch found; already decoded back and compared.

    `layouts`: tensor tables of base and target; .tflite files bring their own. 300 KB take below 5 s.
    Raises LayoutInvalid for tables that do not fit their images, ValueError for sizes outside 1 byte..16 MiB, PatchNotProved.
    """
    for name, image in (("base", base), ("target", target)):
        if not 1 <= len(image) <= IMAGE_BYTES_MAX:
            raise ValueError(f"{name}: {len(image)} bytes, must be 1..{IMAGE_BYTES_MAX}")
    found = layouts or _own_layouts(base, target)
    if found is not None:
        found = check_layout(found[0], len(base)), check_layout(found[1], len(target))
    patch = _smallest(base, target, profile, found)
    try:
        proved = decode(base, patch.data, profile=profile) == target
    except PatchRefused as error:
        raise PatchNotProved(f"profile {profile.name}: its own decoder refuses the patch: {error}") from error
    if not proved:
        raise PatchNotProved(f"profile {profile.name}: the patch decodes to other bytes than the target")
    return patch


def _own_layouts(base: bytes, target: bytes) -> tuple[Layout, Layout] | None:
    if not is_tflite(base) or not is_tflite(target):
        return None
    try:
        return tflite_layout(base), tflite_layout(target)
    except LayoutInvalid:
        return None  # a file that only looks like one goes byte by byte


def _smallest(base: bytes, target: bytes, profile: Profile, layouts: tuple[Layout, Layout] | None) -> WeightPatch:
    def price(way: str, ops: Sequence[Op]) -> WeightPatch:
        data, bits = encode(profile, base, target, ops)
        return WeightPatch(data, way, tuple(ops), tuple(bits))

    if base == target:
        return price("aligned", [Op(OpKind.COPY, len(target))])
    matched = bsdiff_segments(base, target)
    tried: list[WeightPatch] = []
    if layouts is not None and layouts[1]:
        steps = tensor_ops(base, target, *layouts, matched)
        if profile is Profile.S:
            steps = [tuple(op for op in step if op.kind not in _NOT_IN_S) for step in steps]
        ops = _by_tensors(base, target, profile, steps)
        tried += [price("tensors", choice) for choice in dict.fromkeys((tuple(ops), tuple(merged(ops))))]
    tried.append(price("bsdiff", in_place(base, target, matched)))
    tried.append(price("aligned", in_place(base, target, aligned_segments(base, target))))
    if min(len(patch.data) for patch in tried) > _POOR * len(target):
        tried.append(price("literal", [Op(OpKind.LITERAL, len(target))]))
    best = min(tried, key=lambda patch: len(patch.data))
    repeats = dict.fromkeys(tuple(with_repeats(target, best.ops, worth)) for worth in REPEATS_WORTH)
    return min([best, *(price(best.way, ops) for ops in repeats if ops != best.ops)], key=lambda patch: len(patch.data))


def _by_tensors(base: bytes, target: bytes, profile: Profile, steps: Sequence[tuple[Op, ...]]) -> list[Op]:
    """For each step the op that was cheapest when all steps of its sort were coded with ops of that kind."""
    places = list(accumulate((target_bytes(step[0]) for step in steps), initial=0))
    cost: list[dict[Op, int]] = [{} for _ in steps]

    def price(chosen: Sequence[int], choice: int) -> None:
        # Only these stretches: what else the target holds need not be coded to compare them.
        if not chosen:
            return
        ops = [steps[at][min(choice, len(steps[at]) - 1)] for at in chosen]
        part = b"".join(target[places[at] : places[at + 1]] for at in chosen)
        for at, op, bits in zip(chosen, ops, encode(profile, base, part, ops)[1], strict=True):
            if choice < len(steps[at]):
                cost[at][op] = bits + (_CHANGE_OF_KIND if choice else 0)

    # Scaled biases look back at the scales right before them, so both are priced together.
    words = [at for at, step in enumerate(steps) if step[0].kind in (OpKind.FLOATS, OpKind.INTEGERS)]
    for choice in range(max((len(steps[at]) for at in words), default=0)):
        price(words, choice)
    others = [at for at, step in enumerate(steps) if at not in set(words) and len(step) > 1]
    with_base = [at for at in others if steps[at][0].offset or steps[at][0].kind != OpKind.FRESH]
    price(others, 0)
    price([at for at in with_base if steps[at][1].kind == OpKind.LINEAR], 1)
    poor = [at for at in others if min(cost[at].values()) > _POOR_BITS * target_bytes(steps[at][0])]
    for choice in range(1, max((len(steps[at]) for at in poor), default=1)):
        price([at for at in poor if choice < len(steps[at]) and steps[at][choice] not in cost[at]], choice)
    return [
        min(options, key=options.__getitem__) if options else step[0] for options, step in zip(cost, steps, strict=True)
    ]
