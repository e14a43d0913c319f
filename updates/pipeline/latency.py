"""How long one inference takes on a class of hardware, from the image alone: an estimate with a band, not a promise.

Cycles are multiply-accumulates (MACs) times a figure by core and kernel library, plus what reading weights from slot
memory costs. Two figures are published or measured, the rest are assumptions, each said with its number (`Rate.basis`).
What nodes report (p99, deadline misses) replaces the estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from updates.pipeline.evidence import REPORTED, Measured
from updates.pipeline.types import Latency, Profile, Work


@dataclass(frozen=True)
class Rate:
    """Cycles a MAC: least, likely, most. basis: where they come from."""

    low: float
    likely: float
    high: float
    basis: str


_LAI = "Lai et al., CMSIS-NN (arXiv 1801.06601): 24.7 M operations in 99.1 ms at 216 MHz are 1.7 cycles a MAC"
_RATES = {
    ("cortex-m7", "cmsis-nn"): Rate(0.9, 1.7, 4.5, f"likely: {_LAI}; least and most: assumed"),
    ("cortex-m4", "cmsis-nn"): Rate(1.5, 3.0, 8.0, f"assumed from Cortex-M7, which issues two instructions ({_LAI})"),
    ("cortex-m33", "cmsis-nn"): Rate(1.3, 2.8, 8.0, "assumed like Cortex-M4"),
    ("cortex-m55", "cmsis-nn"): Rate(0.15, 0.6, 4.0, "assumed: 8 to 16 int8 lanes of Helium"),
    ("cortex-m3", "cmsis-nn"): Rate(3.5, 8.0, 25.0, "assumed: no packed multiply, as plain C"),
    ("cortex-m0", "cmsis-nn"): Rate(5.0, 14.0, 45.0, "assumed: no packed multiply, few registers"),
    ("cortex-m7", "reference"): Rate(
        3.5, 8.0, 35.0, "likely: plain C in Lai et al., 4.6 times CMSIS-NN; rest: assumed"
    ),
    ("cortex-m4", "reference"): Rate(
        5.0, 15.0, 60.0, "least: a plain int8 loop, 5.1 instructions a MAC in QEMU (mps2-an386, -Os); rest: assumed"
    ),
    ("cortex-m33", "reference"): Rate(5.0, 15.0, 60.0, "assumed like Cortex-M4"),
    ("cortex-m55", "reference"): Rate(3.5, 12.0, 50.0, "assumed like Cortex-M7"),
    ("cortex-m3", "reference"): Rate(5.0, 16.0, 70.0, "assumed like Cortex-M4"),
    ("cortex-m0", "reference"): Rate(8.0, 30.0, 120.0, "assumed: few registers, no 64-bit multiply"),
}
_UNKNOWN_BASIS = "assumed: unknown core or kernel library, the band of Cortex-M4 with either library and twice as wide"
# Assumed: a depthwise convolution reuses nothing; int16 activations halve the lanes; int4 weights are unpacked.
_DEPTHWISE, _INT16, _INT4 = 2.0, 1.6, 1.3
_CYCLES_PER_VALUE = (1.0, 4.0, 25.0)  # assumed: of an operator without weights, per value that it writes
_CYCLES_PER_OPERATOR = (200.0, 1000.0, 5000.0)  # assumed: dispatch, and requantization set-up
_POSITIONS_PER_PASS = 2  # CMSIS-NN multiplies two columns at a time: weights are read once for both


def work(image: bytes) -> tuple[Work, ...]:
    """What each operator of a `.tflite` image of one subgraph has to do, in order."""
    # Here, since the rest of this module is plain arithmetic that the web processes import.
    from updates.pipeline.post_pass import operator_name, unpack

    model = unpack(image)
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        name = operator_name(model, operator)
        values = _values(graph.tensors[int(operator.outputs[0])])
        macs = weight_bytes = passes = 0
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights = graph.tensors[int(operator.inputs[1])]
            shape = [int(length) for length in weights.shape]
            each = math.prod(shape[1:3]) if name == "DEPTHWISE_CONV_2D" else math.prod(shape[1:])
            channels = shape[3] if name == "DEPTHWISE_CONV_2D" else shape[0]
            macs, passes = values * each, values // channels
            weight_bytes = len(model.buffers[weights.buffer].data)
        found.append(Work(name, macs, values, weight_bytes, passes))
    return tuple(found)


def _values(tensor: Any) -> int:
    return math.prod(int(length) for length in tensor.shape)


def rate(profile: Profile) -> Rate:
    """By core (`cortex-m4f` is `cortex-m4`) and kernel library."""
    core = profile.core.lower().removesuffix("plus").removesuffix("+").rstrip("fp")
    known = _RATES.get((core, profile.kernel_library))
    if known is not None:
        return known
    fast, slow = _RATES["cortex-m4", "cmsis-nn"], _RATES["cortex-m4", "reference"]
    return Rate(fast.low / 2, math.sqrt(fast.likely * slow.likely), slow.high * 2, _UNKNOWN_BASIS)


def estimate(operators: tuple[Work, ...], profile: Profile, *, precision: str = "int8") -> Latency:
    """For one inference. The low end takes each weight from slot memory once, behind the arithmetic; the high end reads
    them again for every second output position of a convolution, as a memory without a cache would have to."""
    found = rate(profile)
    factor = {"int16x8": _INT16, "int4": _INT4}.get(precision, 1.0)
    cycles = []
    for end, per_mac in enumerate((found.low, found.likely, found.high)):
        total = 0.0
        for one in operators:
            harder = factor * (_DEPTHWISE if one.operator == "DEPTHWISE_CONV_2D" and end else 1.0)
            own = one.macs * per_mac * harder if one.macs else one.values * _CYCLES_PER_VALUE[end]
            total += own + _CYCLES_PER_OPERATOR[end]
        cycles.append(total)
    once = sum(one.weight_bytes for one in operators)
    again = sum(one.weight_bytes * max(1, -(-one.passes // _POSITIONS_PER_PASS)) for one in operators)
    per_byte = profile.clock_hz / profile.slot_read_bytes_per_second
    low = max(cycles[0], once * per_byte)
    likely = cycles[1] + once * per_byte
    high = cycles[2] + again * per_byte
    return Latency(
        macs=sum(one.macs for one in operators),
        weight_bytes=once,
        cycles=(round(low), round(likely), round(high)),
        milliseconds=tuple(1000 * value / profile.clock_hz for value in (low, likely, high)),  # type: ignore[arg-type]
        evidence="estimate",
        basis=found.basis,
    )


def judged(known: Latency | None, measured: Measured | None, profile: Profile) -> Latency | None:
    """What a verdict goes by: the worst p99 that nodes measured, all three ends of the band, else the estimate.

    known: None for a network whose work nobody counted; its MACs and weights stay 0.
    """
    if measured is None or measured.p99_ms is None:
        return known
    cycles = round(measured.p99_ms / 1000 * profile.clock_hz)
    return Latency(
        known.macs if known else 0,
        known.weight_bytes if known else 0,
        (cycles,) * 3,
        (measured.p99_ms,) * 3,
        REPORTED,
        f"the worst p99 of {measured.p99_nodes} {_nodes(measured.p99_nodes)} of the profile that run the image",
    )


def miss_reason(measured: Measured | None, profile: Profile) -> str | None:
    """Why nodes say that the deadline does not hold; None where they saw no miss, or there is no deadline."""
    if profile.latency_deadline_ms is None or measured is None or not measured.deadline_misses:
        return None
    return (
        f"{measured.deadline_misses} of {measured.inferences} inferences missed the deadline of "
        f"{profile.latency_deadline_ms:g} ms, on {measured.missing_nodes} of {measured.nodes} "
        f"{_nodes(measured.nodes)} that run the image: make the model cheaper or raise the deadline."
    )


def _nodes(count: int) -> str:
    return "node" if count == 1 else "nodes"


def deadline_reason(latency: Latency, profile: Profile) -> str | None:
    """Why the deadline is missed even at the lower end of the band, None where it may be kept or there is none."""
    deadline, least = profile.latency_deadline_ms, latency.milliseconds[0]
    if deadline is None or least <= deadline:
        return None
    if latency.evidence == REPORTED:
        return (
            f"One inference takes {least:.1f} ms ({latency.evidence}: {latency.basis}), the deadline is {deadline:g} ms: "
            f"make the model {least / deadline:.1f} times cheaper or raise the deadline."
        )
    return (
        f"One inference takes at least {least:.1f} ms ({latency.evidence}, likely {latency.milliseconds[1]:.1f}), the "
        f"deadline is {deadline:g} ms: make the model {least / deadline:.1f} times cheaper or raise the deadline."
    )
