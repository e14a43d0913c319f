"""What the pipeline takes and gives. All values are immutable; bytes are bytes, sizes are bytes, ranges are stated."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Literal

import cbor2

MAXIMUM_ONNX_BYTES = 64 * 1024 * 1024
Verdict = Literal["passed", "failed", "inconclusive"]


class Refused(Exception):
    """The pipeline will not go on with this input. `str()` is one clear sentence with the fix.

    stage: check, arrays, convert, quantize, post_pass, judge, fit or validate. code: machine-readable, stable.
    field: what is wrong in the user's words: an operator, a tensor, an array, a request field.
    """

    def __init__(self, *, stage: str, code: str, field: str, message: str, fix: str) -> None:
        super().__init__(stage, code, field, message, fix)
        self.stage, self.code, self.field, self.message, self.fix = stage, code, field, message, fix

    def __str__(self) -> str:
        return f"{self.field}: {self.message.rstrip('.')}; {self.fix.rstrip('.')}."


@dataclass(frozen=True)
class TargetClass:
    """What an image is built for. One image serves every node of a target class."""

    runtime: str = "tflm"
    precision: str = "int8"
    granularity: str = "fc-per-tensor"
    alignment: int = 16


@dataclass(frozen=True)
class Profile:
    """A class of hardware. Slot is one of two; the arena may take `arena_fraction` of what the RTOS leaves of SRAM."""

    name: str
    core: str = "cortex-m4"
    clock_hz: int = 80_000_000
    runtime: str = "tflm"
    kernel_library: str = "cmsis-nn"
    slot_bytes: int = 256 * 1024
    sram_bytes: int = 128 * 1024
    reserved_sram_bytes: int = 32 * 1024
    arena_fraction: float = 0.70
    alignment: int = 16
    cache_line: int = 0
    flash_erase_bytes: int = 2048
    flash_write_bytes: int = 8
    rtos: str = "zephyr"
    deadline_ms: float | None = None
    slot_read_bytes_per_second: int = 40_000_000

    @property
    def arena_limit_bytes(self) -> int:
        return max(0, math.floor((self.sram_bytes - self.reserved_sram_bytes) * self.arena_fraction))


@dataclass(frozen=True)
class Work:
    """What one operator has to do. passes: how many output positions its weights serve. weight_bytes: as stored."""

    operator: str
    macs: int
    values: int
    weight_bytes: int
    passes: int


@dataclass(frozen=True)
class Latency:
    """Of one inference. cycles, milliseconds: least, likely, most. basis: where the cycles a MAC come from."""

    macs: int
    weight_bytes: int
    cycles: tuple[int, int, int]
    milliseconds: tuple[float, float, float]
    evidence: str
    basis: str


@dataclass(frozen=True)
class Image:
    """The exact bytes of a model slot. `arena_bytes` is the smallest arena in which TFLM ran it here (x86-64);
    `arena_estimates` is what a 32-bit core needs, by kernel library."""

    target: TargetClass
    data: bytes
    digest: str
    arena_bytes: int
    arena_estimates: dict[str, int]
    operators: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_type: str
    output_shape: tuple[int, ...]
    output_type: str
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int
    io_hash: str
    self_test_digest: str
    work: tuple[Work, ...] = ()


def io_hash(
    input_shape: tuple[int, ...], input_type: str, output_shape: tuple[int, ...], output_type: str, preprocessing: str
) -> str:
    """8 hex digits: the first 4 bytes of SHA-256 over deterministic CBOR (RFC 8949 4.2) of the five, as one array."""
    encoded = cbor2.dumps(
        [list(input_shape), input_type, list(output_shape), output_type, preprocessing], canonical=True
    )
    return hashlib.sha256(encoded).hexdigest()[:8]


@dataclass(frozen=True)
class Fit:
    """Verdict of an image on a profile. Every reason carries the two numbers and what to change.

    `arena_bytes` is the largest of `arena_by_evidence`, and `evidence` its name.
    """

    profile: str
    fits: bool
    image_bytes: int
    slot_bytes: int
    arena_bytes: int
    arena_limit_bytes: int
    evidence: str
    arena_by_evidence: dict[str, int]
    reasons: tuple[str, ...]
    latency: Latency | None = None


@dataclass(frozen=True)
class ValidationLimits:
    """What the model's owner accepts, per slice. Drops and agreement are fractions (0 to 1).

    minimum_sqnr_db is used where there are no labels to compare (regression, anomaly detection).
    """

    minimum_samples: int = 100
    minimum_class_samples: int = 20
    maximum_accuracy_drop: float = 0.02
    minimum_agreement: float = 0.95
    maximum_class_recall_drop: float = 0.05
    minimum_sqnr_db: float = 15.0


@dataclass(frozen=True)
class Flip:
    """A sample that both decide differently: its index in the slice, from 0, and the three classes."""

    index: int
    label: int
    fp32: int
    int8: int


@dataclass(frozen=True)
class SliceResult:
    """One slice, fp32 against quantized, same inputs. None where the slice has no class labels.

    worst_recall_interval is Wilson's 95 % interval of the quantized recall of the class that lost most; confusion
    matrices are rows of true classes by columns of decisions, empty above MAXIMUM_CONFUSION_CLASSES. flips are the
    first MAXIMUM_FLIPS of flip_count, those that lost a right decision first. error_*: root mean square error against
    float labels. sqnr_db is infinite where both outputs are equal.
    """

    name: str
    verdict: Verdict
    n: int
    accuracy_fp32: float | None
    accuracy_int8: float | None
    error_fp32: float | None
    error_int8: float | None
    agreement: float | None
    sqnr_db: float
    worst_class: int | None
    worst_class_n: int | None
    worst_recall_fp32: float | None
    worst_recall_int8: float | None
    worst_recall_interval: tuple[float, float] | None
    confusion_fp32: tuple[tuple[int, ...], ...]
    confusion_int8: tuple[tuple[int, ...], ...]
    flip_count: int | None
    flips: tuple[Flip, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ValidationReport:
    """The worst slice decides: any failed slice fails, else any inconclusive one is inconclusive."""

    verdict: Verdict
    slices: tuple[SliceResult, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class BuildRequest:
    onnx: bytes
    calibration: bytes
    evaluation: bytes
    targets: tuple[TargetClass, ...] = (TargetClass(),)
    profiles: tuple[Profile, ...] = ()
    limits: ValidationLimits = field(default_factory=ValidationLimits)
    preprocessing: str = "none"


@dataclass(frozen=True)
class BuildResult:
    """`fits` and `reports` are keyed by image digest; `tools` are the versions of what touched the bytes.

    left_out: target classes of which no image could be made, with the reason, where others could.
    fp32_latency_ms: p50 and p99 of the baseline, one sample at a time on one thread of this machine.
    """

    images: tuple[Image, ...]
    fits: dict[str, tuple[Fit, ...]]
    reports: dict[str, ValidationReport]
    tools: dict[str, str]
    left_out: tuple[tuple[TargetClass, str], ...] = ()
    fp32_latency_ms: tuple[float, float] | None = field(default=None, compare=False)
