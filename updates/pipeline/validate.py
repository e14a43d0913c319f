"""fp32 against quantized on the evaluation data, slice by slice. Too few samples is inconclusive, never passed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from updates.pipeline.convert import sqnr_db
from updates.pipeline.statistics import wilson
from updates.pipeline.types import Flip, Refused, SliceResult, ValidationLimits, ValidationReport, Verdict

Floats = npt.NDArray[np.float32]
MAXIMUM_CLASSES = 1000
# What a report may hold of one slice: two matrices of 64 by 64 and 50 samples are some 50 KB of JSON.
MAXIMUM_CONFUSION_CLASSES = 64
MAXIMUM_FLIPS = 50


def validate(slices: list[SliceResult]) -> ValidationReport:
    """The worst slice decides."""
    verdicts = {one.verdict for one in slices}
    verdict: Verdict = "failed" if "failed" in verdicts else "passed" if verdicts == {"passed"} else "inconclusive"
    return ValidationReport(verdict, tuple(slices), tuple(f"{one.name}: {r}" for one in slices for r in one.reasons))


def compare(
    name: str, fp32: Floats, int8: Floats, labels: npt.NDArray[np.int64] | Floats | None, limits: ValidationLimits
) -> SliceResult:
    """fp32, int8: outputs on the same inputs, shape (n, ...), same layout. Integer labels (n,): a classifier, judged
    by decisions (the largest output). Float labels or none: judged by SQNR. Raises Refused (stage validate)."""
    n = len(fp32)
    if labels is not None and labels.dtype.kind == "i":
        return _compare_classes(name, fp32.reshape(n, -1), int8.reshape(n, -1), np.asarray(labels, np.int64), limits)
    failed, thin = [], _too_few(n, limits)
    noise = sqnr_db(fp32, int8)
    if noise < limits.minimum_sqnr_db:
        failed.append(f"SQNR is {noise:.1f} dB, at least {limits.minimum_sqnr_db:g} are wanted.")
    errors: tuple[float | None, float | None] = (None, None)
    if labels is not None:
        if labels.size != fp32.size:
            raise _refuse(
                f"evaluation: labels of {name}",
                f"{labels.size} values for {fp32.size} outputs",
                "store one wanted output a sample",
            )
        wanted = labels.reshape(fp32.shape)
        errors = _rms(fp32 - wanted), _rms(int8 - wanted)
    return SliceResult(
        name=name,
        verdict=_verdict(failed, thin),
        n=n,
        accuracy_fp32=None,
        accuracy_int8=None,
        error_fp32=errors[0],
        error_int8=errors[1],
        agreement=None,
        sqnr_db=noise,
        worst_class=None,
        worst_class_n=None,
        worst_recall_fp32=None,
        worst_recall_int8=None,
        worst_recall_interval=None,
        confusion_fp32=(),
        confusion_int8=(),
        flip_count=None,
        flips=(),
        reasons=(*failed, *thin),
    )


def _compare_classes(
    name: str, fp32: Floats, int8: Floats, labels: npt.NDArray[np.int64], limits: ValidationLimits
) -> SliceResult:
    n, classes = fp32.shape
    if not 2 <= classes <= MAXIMUM_CLASSES or labels.max() >= classes:
        raise _refuse(
            f"evaluation: labels of {name}",
            f"class {labels.max()} among {classes} outputs",
            f"use classes 0 to {classes - 1}",
        )
    before, after = fp32.argmax(1), int8.argmax(1)
    confusions = [np.zeros((classes, classes), np.int64) for _ in range(2)]
    for confusion, decided in zip(confusions, (before, after), strict=True):
        np.add.at(confusion, (labels, decided), 1)
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    hits = [confusion.diagonal() for confusion in confusions]
    drops = (hits[0] - hits[1])[present] / counts[present]
    worst = int(present[drops.argmax()])
    accuracy = [float((decided == labels).mean()) for decided in (before, after)]
    agreement = float((before == after).mean())
    failed, thin = [], _too_few(n, limits)
    # Differences of counts, not of rounded fractions: one sample exactly at a limit must not hang on a rounding error.
    if int(hits[0].sum() - hits[1].sum()) > limits.maximum_accuracy_drop * n + 1e-9:
        failed.append(
            f"Accuracy falls from {accuracy[0]:.3f} to {accuracy[1]:.3f} (n = {n}), "
            f"a fall of {limits.maximum_accuracy_drop:g} is allowed."
        )
    if agreement < limits.minimum_agreement - 1e-9:
        failed.append(f"{agreement:.3f} of the decisions agree (n = {n}), {limits.minimum_agreement:g} are wanted.")
    if drops.max() > limits.maximum_class_recall_drop + 1e-9:
        failed.append(
            f"Recall of class {worst} falls by {drops.max():.3f} (n = {counts[worst]}), "
            f"{limits.maximum_class_recall_drop:g} is allowed."
        )
    rare = [f"{c} ({counts[c]})" for c in range(classes) if counts[c] < limits.minimum_class_samples]
    if rare:
        thin.append(f"Too few samples of class {', '.join(rare)}: {limits.minimum_class_samples} of each are needed.")
    return SliceResult(
        name=name,
        verdict=_verdict(failed, thin),
        n=n,
        accuracy_fp32=accuracy[0],
        accuracy_int8=accuracy[1],
        error_fp32=None,
        error_int8=None,
        agreement=agreement,
        sqnr_db=sqnr_db(fp32, int8),
        worst_class=worst,
        worst_class_n=int(counts[worst]),
        worst_recall_fp32=float(hits[0][worst] / counts[worst]),
        worst_recall_int8=float(hits[1][worst] / counts[worst]),
        worst_recall_interval=wilson(int(hits[1][worst]), int(counts[worst])),
        confusion_fp32=_rows(confusions[0]),
        confusion_int8=_rows(confusions[1]),
        flip_count=int((before != after).sum()),
        flips=_flips(labels, before, after),
        reasons=(*failed, *thin),
    )


def _flips(
    labels: npt.NDArray[np.int64], before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]
) -> tuple[Flip, ...]:
    flipped = np.flatnonzero(before != after)
    lost_first = flipped[np.argsort(before[flipped] != labels[flipped], kind="stable")]
    return tuple(
        Flip(int(index), int(labels[index]), int(before[index]), int(after[index]))
        for index in lost_first[:MAXIMUM_FLIPS]
    )


def _rows(matrix: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    if len(matrix) > MAXIMUM_CONFUSION_CLASSES:
        return ()
    return tuple(tuple(int(value) for value in row) for row in matrix)


def _rms(difference: Floats) -> float:
    return float(np.sqrt(np.square(difference.astype(np.float64)).mean()))


def _too_few(n: int, limits: ValidationLimits) -> list[str]:
    return [f"Too few samples: {n}, {limits.minimum_samples} are needed."] if n < limits.minimum_samples else []


def _verdict(failed: list[str], thin: list[str]) -> Verdict:
    return "failed" if failed else "inconclusive" if thin else "passed"


def _refuse(field: str, message: str, fix: str) -> Refused:
    return Refused(stage="validate", code="labels", field=field, message=message, fix=fix)
