"""What firmware is compiled with, as one C header: the slot, the contract, the self-test, the guard and its hooks.

The hooks are declared here and defined by the firmware: `mf_fallback` decides instead of the network, `mf_fast_path`
decides before it where that is cheap. docs/guard.md says when each is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from updates.pipeline import self_test
from updates.pipeline.guard import Guard


@dataclass(frozen=True)
class HeaderFacts:
    """facts: shapes, types and scales of input and output, as `Image` has them. Sizes are bytes."""

    title: str
    digest: str
    size: int
    arena_bytes: int
    alignment: int
    self_test_digest: str
    io_hash: str
    facts: Mapping[str, Any]
    guard: Guard | None


def c_header(one: HeaderFacts) -> str:
    """C99, without includes beyond stddef.h and stdint.h. Integers alone but for the scales."""
    name = one.digest[:8]
    lines = [
        f"/* {_comment(one.title)}. Made with the image; do not edit. */",
        f"#ifndef MF_MODEL_{name.upper()}_H",
        f"#define MF_MODEL_{name.upper()}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f'#define MF_MODEL_DIGEST "{one.digest}"',
        f"#define MF_MODEL_BYTES {one.size}u",
        f"#define MF_ARENA_BYTES {one.arena_bytes}u /* the largest evidence: x86-64, a 32-bit core, nodes */",
        f"#define MF_IO_HASH 0x{one.io_hash}u",
        "",
        "/* Both slots: place them with the linker script, or use this attribute. */",
        f"#define MF_SLOT_ALIGNMENT {one.alignment}u",
        '#define MF_SLOT_SECTION ".mf_model_slot"',
        f'#define MF_SLOT_ATTRIBUTE __attribute__((section(".mf_model_slot"), aligned({one.alignment})))',
        "",
        *_endpoint("INPUT", "input", one.facts),
        *_endpoint("OUTPUT", "output", one.facts),
        "",
        "/* Golden inputs are made on the node from the seed of docs/self-test.md; their outputs must hash to this. */",
        f"#define MF_GOLDEN_INPUTS {self_test.GOLDEN_INPUTS}u",
        f"#define MF_SELF_TEST_DIGEST {{{_bytes(one.self_test_digest)}}}",
        "",
        *_guard(one.guard),
        "/* Yours: the decision without the network. Writes `count` output values; 0 on success. */",
        "int mf_fallback(const void *window, size_t bytes, void *output, size_t count);",
        "/* Yours: 1 where the window is decided already (silence, say) and the output written, else 0. */",
        "int mf_fast_path(const void *window, size_t bytes, void *output, size_t count);",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _endpoint(prefix: str, side: str, facts: Mapping[str, Any]) -> list[str]:
    shape = [int(length) for length in facts.get(f"{side}_shape", ())]
    if not shape:
        return []
    values = 1
    for length in shape:
        values *= length
    return [
        f"#define MF_{prefix}_SHAPE {{{', '.join(map(str, shape))}}}",
        f"#define MF_{prefix}_VALUES {values}u",
        f"typedef {facts[f'{side}_type']}_t mf_{side}_t;",
        f"#define MF_{prefix}_SCALE {float(facts[f'{side}_scale']):.9g}f",
        f"#define MF_{prefix}_ZERO_POINT ({int(facts[f'{side}_zero_point'])})",
    ]


def _guard(guard: Guard | None) -> list[str]:
    """Per mille, as in the manifest: threshold, then the five bounds (docs/guard.md)."""
    if guard is None:
        return []
    threshold = guard.threshold.per_mille if guard.threshold is not None else 0
    bounds = guard.bounds
    lines = [
        "/* Per mille. Below the threshold, or outside a bound, mf_fallback decides. */",
        f"#define MF_CONFIDENCE_THRESHOLD {threshold}",
    ]
    for field in ("mean_low", "mean_high", "deviation_low", "deviation_high", "saturated_high"):
        lines.append(f"#define MF_BOUND_{field.upper()} ({getattr(bounds, field)})")
    if guard.threshold is not None:
        low, high = guard.threshold.error_interval
        lines.append(
            f"/* On the evaluation data: {guard.threshold.fallback_rate:.1%} of the windows fall back, "
            f"{guard.threshold.error_rate:.1%} of the others are wrong (95 %: {low:.1%} to {high:.1%}). */"
        )
    return [*lines, ""]


def _bytes(digest: str) -> str:
    return ", ".join(f"0x{digest[at : at + 2]}" for at in range(0, len(digest), 2))


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("\n", " ")
