"""fp32 against quantized on the evaluation data, slice by slice. Too few samples is inconclusive, never passed."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import numpy.typing as npt

from updates.pipeline.convert import sqnr_db
from updates.pipeline.statistics import (
    area_under_curve,
    calibration_error,
    kl_divergence,
    mcnemar,
    probabilities,
    threshold_at,
    wilson,
)
from updates.pipeline.types import (
    Flip,
    Refused,
    SliceResult,
    Task,
    ValidationLimits,
    ValidationReport,
    Verdict,
)

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64] | Floats | None
MAXIMUM_CLASSES = 1000
# What a report may hold of one slice: two matrices of 64 by 64 and 50 samples are some 50 KB of JSON.
MAXIMUM_CONFUSION_CLASSES = 64
MAXIMUM_FLIPS = 50
# Flipped samples that are drawn, and in how many steps.
OUTLINES, OUTLINE_STEPS = 8, 64
UNPROVED = "No profile gets this image, so it did not run on perturbed samples: it may not be sent as it is."
_UNCOUNTED = "This slice allows no miss, and without labels none can be counted: store its labels."
# The anomaly threshold is where this share of the normal samples would raise an alarm.
FALSE_ALARMS = 0.05
# Of the labels' root mean square: -30 dB, below which no rise of the error matters.
NEGLIGIBLE_ERROR = 10 ** (-30 / 20)


def validate(slices: list[SliceResult]) -> ValidationReport:
    """The worst slice decides."""
    verdicts = {one.verdict for one in slices}
    verdict: Verdict = "failed" if "failed" in verdicts else "passed" if verdicts == {"passed"} else "inconclusive"
    return ValidationReport(verdict, tuple(slices), tuple(f"{one.name}: {r}" for one in slices for r in one.reasons))


def unproved(report: ValidationReport) -> ValidationReport:
    """Of an image that no profile was given: it met the clean and the uploaded slices alone."""
    if report.verdict != "passed":
        return report
    return replace(report, verdict="inconclusive", reasons=(*report.reasons, UNPROVED))


def task_of(labels: Labels, outputs: int, inputs: int) -> Task:
    """What integer labels (n,) or float labels say of a network of that many output and input values a sample.

    Labels 0 and 1 over a reconstruction of the input, or over one value, are normal and anomalous samples.
    """
    if labels is None or labels.dtype.kind != "i":
        return "regression"
    only_two = int(labels.max(initial=0)) <= 1
    return "anomaly" if only_two and (outputs == 1 or outputs == inputs) else "classification"


def check_labels(name: str, labels: Labels, *, outputs: int, inputs: int, task: Task | None) -> Task:
    """The task, `task_of` where it is None, if these labels of slice `name` suit it. outputs, inputs: values a sample.

    Raises Refused (stage validate, code labels).
    """
    task = task or task_of(labels, outputs, inputs)
    if labels is None:
        return task
    n, field, whole = len(labels), f"evaluation: labels of {name}", labels.dtype.kind == "i"
    if task == "classification":
        if not whole:
            raise _refuse(field, f"{labels.dtype} is no class number", "store integers, one a sample")
        if not 2 <= outputs <= MAXIMUM_CLASSES:
            raise _refuse(field, f"{outputs} outputs are no classes", f"use 2 to {MAXIMUM_CLASSES}, or another task")
        if labels.max() >= outputs:
            first = int(np.argmax(labels >= outputs))
            raise _refuse(
                field, f"class {labels[first]} of sample {first} among {outputs} outputs", f"use 0 to {outputs - 1}"
            )
    elif task == "anomaly":
        if labels.size != n:
            raise _refuse(field, f"{labels.size} values for {n} samples", "store 0 (normal) or 1, one a sample")
    elif whole:
        raise _refuse(field, "class numbers, but the task is regression", "store floats")
    elif labels.size != n * outputs:
        raise _refuse(field, f"{labels.size} values for {n * outputs} outputs", "store one wanted output a sample")
    return task


def compare(
    name: str,
    fp32: Floats,
    int8: Floats,
    labels: Labels,
    limits: ValidationLimits,
    *,
    inputs: Floats | None = None,
    task: Task | None = None,
    perturbed: bool = False,
    threshold: float | None = None,
) -> SliceResult:
    """fp32, int8: outputs on the same inputs, shape (n, ...), same layout as `inputs`.

    classification: integer labels (n,), judged by decisions (the largest output). anomaly: integer labels (n,), 0 is
    normal; the score is the mean squared difference between output and input where they have one size, else the mean
    output; what is above `threshold`, else above that of this slice's own normal samples, raises an alarm. regression:
    float labels, judged by the error; without labels any task is judged by SQNR. task None: `task_of`. Raises Refused
    (stage validate).
    """
    n = len(fp32)
    of_input = inputs[0].size if inputs is not None else -1
    task = check_labels(name, labels, outputs=fp32[0].size, inputs=of_input, task=task)
    own = limits.of_slice(name, perturbed=perturbed)
    if task == "classification" and labels is not None:
        found = _compare_classes(name, fp32.reshape(n, -1), int8.reshape(n, -1), np.asarray(labels, np.int64), own)
    elif task == "anomaly":
        found = _compare_scores(name, fp32, int8, labels, own, inputs, threshold)
    else:
        found = _compare_values(name, fp32, int8, labels, own)
    if own.allows_no_miss(name) and labels is None:
        # A miss that nobody can count must not pass for none.
        found = replace(
            found,
            verdict="failed" if found.verdict == "failed" else "inconclusive",
            reasons=(*found.reasons, _UNCOUNTED),
        )
    return replace(found, task=task, perturbed=perturbed)


def _compare_values(name: str, fp32: Floats, int8: Floats, labels: Labels, limits: ValidationLimits) -> SliceResult:
    noise, failed = sqnr_db(fp32, int8), []
    errors: tuple[float | None, float | None] = (None, None)
    misses: int | None = None
    if labels is not None:
        wanted = np.asarray(labels, np.float32).reshape(fp32.shape)
        before, after = _rms(fp32 - wanted), _rms(int8 - wanted)
        errors = before, after
        allowed = max(before * (1 + limits.maximum_error_increase), NEGLIGIBLE_ERROR * _rms(wanted))
        if after > allowed + 1e-12:
            failed.append(
                f"The error rises from {before:.4g} to {after:.4g} (n = {len(fp32)}), to {allowed:.4g} is allowed."
            )
        misses = _outgrown(fp32 - wanted, int8 - wanted, limits.maximum_error_increase, allowed)
    if noise < limits.minimum_sqnr_db:
        failed.append(f"SQNR is {noise:.1f} dB, at least {limits.minimum_sqnr_db:g} are wanted.")
    thin = _too_few(len(fp32), limits)
    if limits.allows_no_miss(name) and misses is not None:
        failed, thin = _no_miss(misses, len(fp32)), []
    return SliceResult(
        name=name,
        verdict=_verdict(failed, thin),
        n=len(fp32),
        sqnr_db=noise,
        reasons=(*failed, *thin),
        error_fp32=errors[0],
        error_int8=errors[1],
        misses=misses,
    )


def _outgrown(before: Floats, after: Floats, increase: float, allowed: float) -> int:
    """Samples whose error grew by more than the relative increase, to more than what the slice as a whole may have."""
    own, now = (np.sqrt(np.square(one.reshape(len(one), -1)).mean(axis=1)) for one in (before, after))
    return int((now > np.maximum(own * (1 + increase), allowed) + 1e-9).sum())


def anomaly_scores(outputs: Floats, inputs: Floats | None) -> npt.NDArray[np.float64]:
    """(n,): how anomalous each sample is."""
    n = len(outputs)
    flat = outputs.reshape(n, -1).astype(np.float64)
    if inputs is None or inputs[0].size != flat.shape[1]:
        return np.asarray(flat.mean(axis=1))
    return np.asarray(np.square(flat - inputs.reshape(n, -1)).mean(axis=1))


def _compare_scores(
    name: str,
    fp32: Floats,
    int8: Floats,
    labels: Labels,
    limits: ValidationLimits,
    inputs: Floats | None,
    given: float | None,
) -> SliceResult:
    n, noise = len(fp32), sqnr_db(fp32, int8)
    before, after = anomaly_scores(fp32, inputs), anomaly_scores(int8, inputs)
    anomalous = np.zeros(n, np.bool_) if labels is None else np.asarray(labels, np.float64).reshape(n) > 0
    failed, thin = [], _too_few(n, limits)
    aucs: tuple[float | None, float | None] = (None, None)
    if anomalous.any() and not anomalous.all():
        areas = area_under_curve(before, anomalous), area_under_curve(after, anomalous)
        aucs = areas
        if areas[0] - areas[1] > limits.maximum_auc_drop + 1e-9:
            failed.append(
                f"The area under the curve falls from {areas[0]:.3f} to {areas[1]:.3f} (n = {n}), "
                f"a fall of {limits.maximum_auc_drop:g} is allowed."
            )
    own: tuple[float | None, float | None] = (None, None)
    if not anomalous.all():
        own = threshold_at(before[~anomalous], FALSE_ALARMS), threshold_at(after[~anomalous], FALSE_ALARMS)
    # The firmware keeps its threshold: what counts is who raises an alarm by the one of fp32 on clean samples.
    threshold = next((one for one in (given, own[0]) if one is not None), float(np.median(before)))
    alarms_before, alarms_after = before > threshold, after > threshold
    agreement = float((alarms_before == alarms_after).mean())
    if int((alarms_before == alarms_after).sum()) < limits.minimum_agreement * n - 1e-9:
        failed.append(
            f"{agreement:.3f} of the alarms agree at the threshold of fp32, {threshold:.4g} (n = {n}), "
            f"{limits.minimum_agreement:g} are wanted."
        )
    if labels is None and noise < limits.minimum_sqnr_db:
        failed.append(f"SQNR is {noise:.1f} dB, at least {limits.minimum_sqnr_db:g} are wanted.")
    wrong = int((alarms_after != anomalous).sum())
    if limits.allows_no_miss(name) and labels is not None:
        missed = int((anomalous & ~alarms_after).sum())
        failed, thin, wrong = _no_miss(missed, n), [], missed
    elif labels is not None:
        few = min(int(anomalous.sum()), n - int(anomalous.sum()))
        if few < limits.minimum_class_samples:
            thin.append(f"Too few normal or anomalous samples: {few}, {limits.minimum_class_samples} are needed.")
    return SliceResult(
        name=name,
        verdict=_verdict(failed, thin),
        n=n,
        sqnr_db=noise,
        reasons=(*failed, *thin),
        auc_fp32=aucs[0],
        auc_int8=aucs[1],
        threshold_fp32=own[0],
        threshold_int8=own[1],
        agreement=agreement,
        misses=wrong if labels is not None else None,
    )


def _compare_classes(
    name: str, fp32: Floats, int8: Floats, labels: npt.NDArray[np.int64], limits: ValidationLimits
) -> SliceResult:
    n, classes = fp32.shape
    before, after = fp32.argmax(1), int8.argmax(1)
    confusions = [np.zeros((classes, classes), np.int64) for _ in range(2)]
    for confusion, decided in zip(confusions, (before, after), strict=True):
        np.add.at(confusion, (labels, decided), 1)
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    frequent = counts[present] >= limits.minimum_recall_samples
    hits = [confusion.diagonal() for confusion in confusions]
    right = int(hits[0].sum()), int(hits[1].sum())
    lost, gained = (int((one & ~other).sum()) for one, other in permutations((before == labels, after == labels)))
    drops = (hits[0] - hits[1])[present] / counts[present]
    judged = np.where(frequent, drops, -1.0) if frequent.any() else drops
    worst = int(present[judged.argmax()])
    agreement = float((before == after).mean())
    distributions = probabilities(fp32), probabilities(int8)
    failed, thin = [], _too_few(n, limits)
    # Differences of counts, not of rounded fractions: one sample exactly at a limit must not hang on a rounding error.
    if right[0] - right[1] > limits.maximum_accuracy_drop * n + 1e-9:
        failed.append(
            f"Accuracy falls from {right[0] / n:.3f} to {right[1] / n:.3f} (n = {n}), "
            f"a fall of {limits.maximum_accuracy_drop:g} is allowed."
        )
    if agreement < limits.minimum_agreement - 1e-9:
        failed.append(f"{agreement:.3f} of the decisions agree (n = {n}), {limits.minimum_agreement:g} are wanted.")
    if frequent.any() and judged.max() > limits.maximum_class_recall_drop + 1e-9:
        failed.append(
            f"Recall of class {worst} falls by {judged.max():.3f} (n = {counts[worst]}), "
            f"{limits.maximum_class_recall_drop:g} is allowed."
        )
    rare = [f"{c} ({counts[c]})" for c in range(classes) if counts[c] < limits.minimum_class_samples]
    if rare:
        thin.append(f"Too few samples of class {', '.join(rare)}: {limits.minimum_class_samples} of each are needed.")
    if limits.allows_no_miss(name):
        failed, thin = _no_miss(n - right[1], n), []
    return SliceResult(
        name=name,
        verdict=_verdict(failed, thin),
        n=n,
        sqnr_db=sqnr_db(fp32, int8),
        reasons=(*failed, *thin),
        accuracy_fp32=right[0] / n,
        accuracy_int8=right[1] / n,
        accuracy_interval=wilson(right[1], n),
        agreement=agreement,
        worst_class=worst,
        worst_class_n=int(counts[worst]),
        worst_recall_fp32=float(hits[0][worst] / counts[worst]),
        worst_recall_int8=float(hits[1][worst] / counts[worst]),
        worst_recall_interval=wilson(int(hits[1][worst]), int(counts[worst])),
        mcnemar_p=mcnemar(lost, gained),
        kl=kl_divergence(*distributions),
        calibration_fp32=calibration_error(distributions[0], labels),
        calibration_int8=calibration_error(distributions[1], labels),
        misses=n - right[1],
        confusion_fp32=_rows(confusions[0]),
        confusion_int8=_rows(confusions[1]),
        flip_count=int((before != after).sum()),
        flips=_flips(labels, before, after),
    )


def _no_miss(misses: int, n: int) -> list[str]:
    return [f"{misses} of {n} decisions are wrong, and this slice allows no miss."] if misses else []


def _flips(
    labels: npt.NDArray[np.int64], before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]
) -> tuple[Flip, ...]:
    flipped = np.flatnonzero(before != after)
    lost_first = flipped[np.argsort(before[flipped] != labels[flipped], kind="stable")]
    return tuple(
        Flip(int(index), int(labels[index]), int(before[index]), int(after[index]))
        for index in lost_first[:MAXIMUM_FLIPS]
    )


def outline(sample: Floats, time_axis: int | None) -> tuple[int, ...]:
    """The course of a sample along its time axis (channels averaged), else of its values in their order."""
    course = sample.reshape(-1)
    if time_axis is not None:
        course = np.moveaxis(sample, time_axis, 0).reshape(sample.shape[time_axis], -1).mean(axis=1)
    steps = np.array([part.mean() for part in np.array_split(course, min(OUTLINE_STEPS, len(course)))])
    low, span = float(steps.min()), float(np.ptp(steps))
    return tuple(round(100 * (float(one) - low) / span) if span else 50 for one in steps)


def _rows(matrix: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    if len(matrix) > MAXIMUM_CONFUSION_CLASSES:
        return ()
    return tuple(tuple(int(value) for value in row) for row in matrix)


def _rms(difference: Floats) -> float:
    return math.sqrt(float(np.square(difference.astype(np.float64)).mean()))


def _too_few(n: int, limits: ValidationLimits) -> list[str]:
    return [f"Too few samples: {n}, {limits.minimum_samples:g} are needed."] if n < limits.minimum_samples else []


def _verdict(failed: list[str], thin: list[str]) -> Verdict:
    return "failed" if failed else "inconclusive" if thin else "passed"


def _refuse(field: str, message: str, fix: str) -> Refused:
    return Refused(stage="validate", code="labels", field=field, message=message, fix=fix)
