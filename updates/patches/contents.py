"""What is in a patch: bytes by tensor, modes, and what decoding it asks of a node."""

from __future__ import annotations

from dataclasses import dataclass

from devices.agent.patch_codec import Header, OpKind, Part, Profile, decode_parts, read_header, state_bytes
from updates.patches.layout import Layout
from updates.patches.tflite_layout import is_tflite, tflite_layout

# Instructions a byte of the target on a Cortex-M4F, -Os, by tests/benchmarks/patches.py; a copy is bound by the flash.
_INSTRUCTIONS = {OpKind.LINEAR: 6500, OpKind.LITERAL: 6300}
_INSTRUCTIONS_OTHER, _INSTRUCTIONS_COPY, _INSTRUCTIONS_S = 2300, 30, 400
_INSTRUCTIONS_MOST = {Profile.S: 750, Profile.L: max(_INSTRUCTIONS.values())}
_CLOCK_HZ = 64_000_000
_CYCLES_AN_INSTRUCTION = 1.5  # assumed: flash wait states and taken branches
_STACK_BYTES = {Profile.S: 92, Profile.L: 208}


_COPIES = {OpKind.COPY, OpKind.SAME_WORDS, OpKind.SAME_ROWS, OpKind.SAME_COLUMNS, OpKind.EARLIER}


@dataclass(frozen=True)
class Inspection:
    header: Header
    patch_size: int
    parts: tuple[Part, ...]  # empty without the base
    names: tuple[str, ...]  # of the parts' tensors; empty where there is none

    @property
    def ram_bytes(self) -> int:
        """Of the decoder: state and stack."""
        return state_bytes(self.header.profile) + _STACK_BYTES[self.header.profile]

    @property
    def seconds(self) -> float | None:
        """Estimate at 64 MHz; None without the base."""
        if not self.parts:
            return None
        return _seconds(sum(part.size * _cost(part.op.kind, self.header) for part in self.parts))

    @property
    def seconds_at_most(self) -> float:
        """As if every byte were of the dearest kind: known without the base."""
        return _seconds(self.header.target_size * _INSTRUCTIONS_MOST[self.header.profile])


def inspect_patch(patch: bytes, base: bytes | None, layout: Layout | None = None) -> Inspection:
    """Header, and with the base all ops. `layout` of the target names the tensors; a .tflite target brings its own.

    Raises PatchRefused for a patch that is damaged or for another base.
    """
    header = read_header(patch)
    if base is None:
        return Inspection(header, len(patch), (), ())
    target, parts = decode_parts(base, patch)
    if layout is None and is_tflite(target):
        layout = tflite_layout(target)
    names = {tensor.offset: tensor.name or f"{tensor.kind} at {tensor.offset}" for tensor in layout or ()}
    return Inspection(header, len(patch), tuple(parts), tuple(names.get(part.at, "") for part in parts))


def report(found: Inspection) -> str:
    """For a terminal."""
    header = found.header
    lines = [
        f"profile {header.profile.name}, {found.patch_size} bytes",
        f"base    {header.base_size} bytes, SHA-256 begins with {header.base_prefix.hex()}",
        f"target  {header.target_size} bytes, SHA-256 begins with {header.target_prefix.hex()}",
        f"decoder {found.ram_bytes} bytes of RAM with stack",
    ]
    if found.seconds is None:
        lines.append(f"time    at most {found.seconds_at_most:.2f} s at 64 MHz (estimate)")
        return "\n".join([*lines, "bytes and mode by tensor need the base image: --base OLD"])
    lines.append(f"time    about {found.seconds:.2f} s at 64 MHz (estimate)")
    return "\n".join([*lines, "", *_table(found)])


def _table(found: Inspection) -> list[str]:
    rows = [("target bytes", "patch bytes", "bits a byte", "mode", "tensor")]
    for part, name in zip(found.parts, found.names, strict=True):
        mode = part.op.kind.name.lower().replace("_", " ")
        each = "-" if part.op.kind in _COPIES else f"{part.bits / part.size:.3f}"
        rows.append((f"{part.at}+{part.size}", f"{part.bits / 8:.1f}", each, mode, name))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]


def _seconds(instructions: int) -> float:
    return instructions * _CYCLES_AN_INSTRUCTION / _CLOCK_HZ


def _cost(kind: OpKind, header: Header) -> int:
    if kind in _COPIES:
        return _INSTRUCTIONS_COPY
    return _INSTRUCTIONS_S if header.profile is Profile.S else _INSTRUCTIONS.get(kind, _INSTRUCTIONS_OTHER)
