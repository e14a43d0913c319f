"""What the pipeline takes and gives. All values are immutable; bytes are bytes, sizes are bytes, ranges are stated."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cbor2

from updates.pipeline.evidence import Measured
from updates.pipeline.guard import Guard

MAXIMUM_ONNX_BYTES = 64 * 1024 * 1024
Verdict = Literal["passed", "failed", "inconclusive"]
Task = Literal["classification", "anomaly", "regression"]
TASKS: tuple[Task, ...] = ("classification", "anomaly", "regression")


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


# Precision and granularity of an image that nodes hold.
HeldClass = tuple[str, str]


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
    chip: str = ""
    clock_hz: int = 80_000_000
    runtime: str = "tflm"
    kernel_library: str = "cmsis-nn"
    slot_bytes: int = 256 * 1024
    sram_bytes: int = 128 * 1024
    reserved_sram_bytes: int = 32 * 1024
    arena_fraction: float = 0.70
    alignment: int = 16
    cache_line_bytes: int = 0
    flash_erase_bytes: int = 2048
    flash_write_bytes: int = 8
    rtos: str = "zephyr"
    latency_deadline_ms: float | None = None
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

    `arena_bytes` is the largest of `arena_by_evidence`, and `evidence` its name. `available_sram_bytes`: what the RTOS
    leaves; arena and `decoder_ram_bytes` share it. `both_slots_bytes`: of flash, for the image that runs and the next.
    `measured`: what nodes of the profile that run the image say, None where none does.
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
    available_sram_bytes: int = 0
    decoder_ram_bytes: int = 0
    both_slots_bytes: int = 0
    measured: Measured | None = None


@dataclass(frozen=True)
class Signal:
    """What the model's owner says of the input. `time_axis`: which dimension of a sample (without batch) is time, None:
    none is, or features hide it. `sample_rate_hz` along it; `mains_hz`: 50 or 60."""

    time_axis: int | None = None
    sample_rate_hz: float | None = None
    mains_hz: float = 50.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Signal:
        """From JSON. Raises ValueError that names the field and the fix."""
        _check_numbers(given, list(cls.__dataclass_fields__), "signal")
        axis, rate = given.get("time_axis"), given.get("sample_rate_hz")
        if axis is not None and (not isinstance(axis, int) or axis < 0):
            raise ValueError(f"signal.time_axis: {axis!r} is no dimension; count from 0, without the batch")
        for name, value in (("sample_rate_hz", rate), ("mains_hz", given.get("mains_hz", cls.mains_hz))):
            if value is not None and value <= 0:
                raise ValueError(f"signal.{name}: {value!r} is no frequency; give hertz above 0")
        return cls(**given)


# What a slice that was made by perturbing is held to where the owner says nothing: an input as bad as that costs the
# original decisions too, and near a tie the two networks may well differ.
PERTURBED_LIMITS: Mapping[str, float] = {
    "maximum_accuracy_drop": 0.05,
    "minimum_agreement": 0.75,
    "maximum_class_recall_drop": 0.20,
    "minimum_sqnr_db": 5.0,
    "maximum_auc_drop": 0.05,
    "maximum_error_increase": 0.50,
    "minimum_class_samples": 0,
    "minimum_recall_samples": 20,
}
ZERO_MISS = "zero-miss"
# What the owner sets to let a build look for images near the deployed one.
CURVE_LIMITS = frozenset({"curve_accuracy_drop", "curve_error_growth"})


@dataclass(frozen=True)
class ValidationLimits:
    """What the model's owner accepts, per slice. Drops and agreement are fractions (0 to 1).

    minimum_sqnr_db is for all that is no classification. minimum_recall_samples: of a class, for its recall to be
    judged; of perturbed samples there may be few of each. maximum_error_increase is relative to the error of fp32
    (regression with labels), maximum_auc_drop is for anomaly detection. zero_miss: slices of which one wrong decision of
    the quantized network fails, whatever n; a slice whose name begins with "zero-miss" is one. curve_*: what may be given
    for a smaller patch against the deployed image. slices: other limits for single slices, by name and field; made
    slices have PERTURBED_LIMITS besides.
    """

    minimum_samples: int = 100
    minimum_class_samples: int = 20
    maximum_accuracy_drop: float = 0.02
    minimum_agreement: float = 0.95
    maximum_class_recall_drop: float = 0.05
    minimum_recall_samples: int = 1
    minimum_sqnr_db: float = 15.0
    maximum_auc_drop: float = 0.02
    maximum_error_increase: float = 0.10
    curve_accuracy_drop: float = 0.01
    curve_error_growth: float = 0.03
    zero_miss: tuple[str, ...] = ()
    slices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ValidationLimits:
        """From JSON or YAML. Raises ValueError that names the field and the fix."""
        numbers = [name for name in cls.__dataclass_fields__ if name not in ("zero_miss", "slices")]
        known = [*numbers, "zero_miss", "slices"]
        _check_numbers(given, known, "limits", but=("zero_miss", "slices"))
        zero_miss, slices = given.get("zero_miss", ()), given.get("slices", {})
        if isinstance(zero_miss, str) or not all(isinstance(name, str) for name in zero_miss):
            raise ValueError(f"limits.zero_miss: {zero_miss!r} is no list of slice names; use e.g. [arc-fault]")
        if not isinstance(slices, Mapping) or not all(isinstance(one, Mapping) for one in slices.values()):
            raise ValueError("limits.slices: it is no table; use e.g. {noise-5db: {minimum_agreement: 0.5}}")
        for name, own in slices.items():
            _check_numbers(own, numbers, f"limits.slices.{name}")
        return cls(
            **{**given, "zero_miss": tuple(zero_miss), "slices": {key: dict(own) for key, own in slices.items()}}
        )

    def of_slice(self, name: str, *, perturbed: bool = False) -> ValidationLimits:
        """What this slice is held to."""
        return replace(self, **{**(PERTURBED_LIMITS if perturbed else {}), **self.slices.get(name, {})})  # type: ignore[arg-type]

    def allows_no_miss(self, name: str) -> bool:
        return name in self.zero_miss or name.replace("_", "-").startswith(ZERO_MISS)


def _check_numbers(given: Mapping[str, Any], known: list[str], field: str, but: tuple[str, ...] = ()) -> None:
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{field}: {name!r} is unknown; use {', '.join(known)}")
        if name in but or (value is None and field == "signal"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{field}.{name}: {value!r} is no number; give one")


@dataclass(frozen=True)
class Flip:
    """A sample that both decide differently: its index in the slice, from 0, and the three classes. outline: its course in
    at most 64 steps from 0 to 100, of the first few."""

    index: int
    label: int
    fp32: int
    int8: int
    outline: tuple[int, ...] = ()


@dataclass(frozen=True)
class SliceResult:
    """One slice, fp32 against quantized, same inputs. None where the task of the slice has no such number.

    perturbed: made from the clean slice. worst_recall_interval is Wilson's 95 % interval of the quantized recall of the
    class that lost most, accuracy_interval that of the quantized accuracy; confusion matrices are rows of true classes
    by columns of decisions, empty above MAXIMUM_CONFUSION_CLASSES. flips are the first MAXIMUM_FLIPS of flip_count,
    those that lost a right decision first. misses: wrong decisions of the quantized network; in
    a regression samples whose error outgrew what is allowed. mcnemar_p: chance that both
    networks err alike. kl: nats, fp32 to quantized. calibration_*: expected calibration error. error_*: root mean
    square error against float labels. auc_*, threshold_*: of the anomaly score; the threshold that 5 % of the normal
    samples exceed. sqnr_db is infinite where both outputs are equal.
    """

    name: str
    verdict: Verdict
    n: int
    sqnr_db: float
    reasons: tuple[str, ...]
    task: Task = "regression"
    perturbed: bool = False
    accuracy_fp32: float | None = None
    accuracy_int8: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    error_fp32: float | None = None
    error_int8: float | None = None
    auc_fp32: float | None = None
    auc_int8: float | None = None
    threshold_fp32: float | None = None
    threshold_int8: float | None = None
    agreement: float | None = None
    worst_class: int | None = None
    worst_class_n: int | None = None
    worst_recall_fp32: float | None = None
    worst_recall_int8: float | None = None
    worst_recall_interval: tuple[float, float] | None = None
    mcnemar_p: float | None = None
    kl: float | None = None
    calibration_fp32: float | None = None
    calibration_int8: float | None = None
    misses: int | None = None
    confusion_fp32: tuple[tuple[int, ...], ...] = ()
    confusion_int8: tuple[tuple[int, ...], ...] = ()
    flip_count: int | None = None
    flips: tuple[Flip, ...] = ()


@dataclass(frozen=True)
class ValidationReport:
    """The worst slice decides: any failed slice fails, else any inconclusive one is inconclusive."""

    verdict: Verdict
    slices: tuple[SliceResult, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Against:
    """The image that most nodes hold, its class, and what a patch from it to another image weighs in bytes."""

    base: bytes
    patch_bytes: Callable[[bytes], int]
    held: HeldClass | None = None


@dataclass(frozen=True)
class CurvePoint:
    """An image of the new version near the deployed one. strength: how dear a bit was, 0 for the plain image.
    activations: whose scales (base or new). metric: accuracy (loss is its drop) or error (loss is its relative growth)."""

    data: bytes
    digest: str
    strength: float
    activations: str
    patch_bytes: int
    metric: str
    reference: float
    value: float
    loss: float
    within_limit: bool
    chosen: bool = False


@dataclass(frozen=True)
class Existing:
    """An image of the version that was built before: its exact bytes are judged, it is not made anew."""

    target: TargetClass
    data: bytes


@dataclass(frozen=True)
class BuildRequest:
    """targets: what to make. existing: what is judged besides; one of both is needed. task None: told from labels and
    outputs (`validate.task_of`). contract: io_hashes that firmware in the field takes, which images with another one come
    after; where no image has one of them, that of the first target class counts. None: any will do. held: by name of a
    profile, the class of the image that most of its nodes run; preferred where it is as accurate as the best. A profile
    that is not in it: the class of the deployed image, where there is one."""

    onnx: bytes
    calibration: bytes
    evaluation: bytes
    targets: tuple[TargetClass, ...] = (TargetClass(),)
    profiles: tuple[Profile, ...] = ()
    limits: ValidationLimits = field(default_factory=ValidationLimits)
    preprocessing: str = "none"
    task: Task | None = None
    signal: Signal = Signal()
    contract: frozenset[str] | None = None
    against: Against | None = None
    held: Mapping[str, HeldClass] = field(default_factory=dict)
    existing: tuple[Existing, ...] = ()


@dataclass(frozen=True)
class Alternative:
    """An image that was weighed: whether it fits the profile, and its noise. `sqnr_db`: the lowest of the slices that all
    images were shown."""

    digest: str
    target: TargetClass
    fits: bool
    verdict: str
    sqnr_db: float
    arena_bytes: int
    image_bytes: int


@dataclass(frozen=True)
class Choice:
    """digest: the chosen image, None where none fits. alternatives: all images, best first, the chosen one too."""

    profile: str
    digest: str | None
    alternatives: tuple[Alternative, ...]
    reason: str


@dataclass(frozen=True)
class BuildResult:
    """`fits`, `reports` and `guards` are keyed by image digest; `tools` are the versions of what touched the bytes.

    left_out: target classes of which no image could be made, with the reason, where others could. choices: one a
    profile of the request. fp32_latency_ms: p50 and p99 of the baseline, one sample at a time on one thread of this
    machine. curve: smallest patch first; the point that is chosen is the image of its target class. curve_refusal: why
    there is no image near the deployed one.
    """

    images: tuple[Image, ...]
    fits: dict[str, tuple[Fit, ...]]
    reports: dict[str, ValidationReport]
    tools: dict[str, str]
    left_out: tuple[tuple[TargetClass, str], ...] = ()
    fp32_latency_ms: tuple[float, float] | None = field(default=None, compare=False)
    choices: tuple[Choice, ...] = ()
    guards: dict[str, Guard] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    curve_refusal: str = ""
