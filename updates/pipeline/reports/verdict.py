"""Does a compiled network decide like its original? Judged by what the vendor's tool measured, never by running it here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from updates.pipeline.reports.st_validation import Evaluation
from updates.pipeline.statistics import wilson
from updates.pipeline.types import ValidationLimits, Verdict


@dataclass(frozen=True)
class EvaluationVerdict:
    """`slices`: one a measured output, with the field names of a slice of our own validation that apply."""

    verdict: Verdict
    slices: list[dict[str, Any]]
    reasons: tuple[str, ...]


def judge_evaluations(rows: Sequence[Evaluation], limits: ValidationLimits) -> EvaluationVerdict:
    """Outputs of the C model on the target against the original's. Only what ran on the chip itself can pass."""
    on_target = [row for row in rows if row.on_target]
    if not on_target:
        reason = "nothing was measured on the target" if rows else "no validation report came with the image"
        return EvaluationVerdict("inconclusive", [], (f"{reason}: send that of `stedgeai validate --mode target`",))
    originals = {row.output: row for row in rows if row.model.lower().startswith("original")}
    slices = [_slice(row, originals.get(row.output), limits) for row in on_target]
    verdicts = {one["verdict"] for one in slices}
    verdict: Verdict = "failed" if "failed" in verdicts else "inconclusive" if "inconclusive" in verdicts else "passed"
    return EvaluationVerdict(verdict, slices, tuple(reason for one in slices for reason in one["reasons"]))


def _slice(row: Evaluation, original: Evaluation | None, limits: ValidationLimits) -> dict[str, Any]:
    drop = None
    if original is not None and original.accuracy is not None and row.accuracy is not None:
        drop = original.accuracy - row.accuracy
    verdict: Verdict = "passed"
    reasons = []
    if row.samples is None or row.samples < limits.minimum_samples:
        verdict = "inconclusive"
        reasons.append(f"{row.samples or 'unknown many'} samples, {limits.minimum_samples} are needed")
    if drop is None:
        verdict = "inconclusive"
        reasons.append("the report gives no accuracy of both the original and the target: validate with labels")
    elif drop > limits.maximum_accuracy_drop:
        verdict = "failed"
        reasons.append(
            f"accuracy falls by {100 * drop:.1f} points, {100 * limits.maximum_accuracy_drop:.1f} are allowed"
        )
    interval = (
        wilson(round(row.accuracy * row.samples), row.samples) if row.accuracy is not None and row.samples else None
    )
    return {
        "name": f"ST on target, output {row.output}",
        "verdict": verdict,
        "n": row.samples or 0,
        "accuracy_fp32": original.accuracy if original else None,
        "accuracy_int8": row.accuracy,
        "accuracy_interval": interval,
        "error_fp32": original.rmse if original else None,
        "error_int8": row.rmse,
        "agreement": None,
        "sqnr_db": None,
        "worst_class": None,
        "worst_class_n": None,
        "worst_recall_fp32": None,
        "worst_recall_int8": None,
        "worst_recall_interval": None,
        "confusion_fp32": [],
        "confusion_int8": [],
        "flip_count": None,
        "flips": [],
        "reasons": reasons,
    }
