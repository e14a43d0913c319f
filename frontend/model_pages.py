"""What the pages of versions and patches say, and what their templates need besides rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from frontend.memory_map import EVIDENCE
from frontend.pages import Verdict, as_sentence, plural
from frontend.svg import ConfusionRow, confusion, outline_points
from updates import selectors as updates
from updates.comparison import Comparison
from updates.judging import profiles_lacking
from updates.models import Fit, ModelImage, ModelVersion
from updates.pipeline.evidence import REPORTED
from updates.pipeline.statistics import wilson
from updates.states import VersionState

_SEVERITY = {"failed": 0, "inconclusive": 1, "passed": 2}


def versions_verdict(versions: list[ModelVersion]) -> Verdict:
    if not versions:
        return Verdict(
            "is-planned", "s-planned", "No version has been uploaded yet.", "Upload a network with its data."
        )
    newest = versions[0]
    sentences = {
        VersionState.READY: ("is-confirmed", "s-confirmed", f"The newest version, {newest}, is ready."),
        VersionState.REFUSED: ("is-rejected", "s-rejected", f"The newest version, {newest}, was refused."),
    }
    css, icon, sentence = sentences.get(
        VersionState(newest.state), ("is-moving", "s-trial", f"The newest version, {newest}, is being built.")
    )
    return Verdict(css, icon, sentence)


def version_verdict(version: ModelVersion, fits: list[Fit], images: list[ModelImage]) -> Verdict:
    if version.state == VersionState.REFUSED:
        refusal = version.refusal or {}
        return Verdict(
            "is-rejected",
            "s-rejected",
            f"Refused: {refusal.get('field', 'the upload')}: {refusal.get('message', '').rstrip('.')}.",
            as_sentence(refusal.get("fix", "")),
        )
    if version.state != VersionState.READY:
        stage = f" ({version.stage})" if version.stage else ""
        return Verdict(
            "is-moving", "s-trial", f"Being built: {version.progress_percent} %{stage}.", "The verdict comes by itself."
        )
    good, profiles = {fit.profile_id for fit in fits if fit.fits}, {fit.profile_id for fit in fits}
    verdicts = {image.validation.verdict for image in images if hasattr(image, "validation")}
    may = f"{version} may run on {len(good)} of {plural(len(profiles), 'profile')}"
    if "passed" in verdicts and good:
        return Verdict(
            "is-fits", "s-confirmed", f"{may}, and decides like the fp32 baseline in every slice.", _worst(images)
        )
    if "failed" in verdicts:
        return Verdict("is-fail", "s-failed", f"{version} does not decide like its fp32 baseline.", _reasons(images))
    if "inconclusive" in verdicts:
        return Verdict(
            "is-inconclusive", "s-inconclusive", f"{version} has too few samples to judge.", _reasons(images)
        )
    return Verdict("is-nofit", "s-failed", f"{may}.", "The table below names what is too large and by how much.")


def _reasons(images: list[ModelImage]) -> str:
    return " ".join(reason for image in images if hasattr(image, "validation") for reason in image.validation.reasons)


def _worst(images: list[ModelImage]) -> str:
    slices = [one for image in proved(images) for one in _slices(image)]
    judged = [one for one in slices if one["change"] is not None]
    if not judged:
        return ""
    worst = min(judged, key=lambda one: one["change"])
    points = f"{abs(worst['change']) * 100:.1f} points {'below' if worst['change'] < 0 else 'above'} fp32"
    return f"Worst slice: {worst['name']}, {points} on {plural(worst['n'], 'sample')}."


def efficient(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of points with the smallest patch first, those that lose less than every smaller one; what ships, and the plain one."""
    kept: list[dict[str, Any]] = []
    least = math.inf
    for point in curve:
        if point["loss"] < least or point["chosen"] or not point["strength"]:
            kept.append(point)
        least = min(least, point["loss"])
    return kept


@dataclass(frozen=True)
class ImageRow:
    """profiles: names of those that get it. noise_db: on the worst slice that all images were shown; None: unknown."""

    image: ModelImage
    profiles: list[str]
    noise_db: float | None


def proved(images: list[ModelImage]) -> list[ModelImage]:
    """Those that a profile gets, else the first: their reports are whole, the others' of the uploaded slices alone."""
    judged = [image for image in images if hasattr(image, "validation")]
    return [image for image in judged if _profiles_of(image)] or judged[:1]


def _profiles_of(image: ModelImage) -> list[str]:
    return [fit.profile.name for fit in image.fits.all() if fit.rank == 0 and fit.fits]


@dataclass(frozen=True)
class FitCell:
    """What is missing is how much too large the image is for the slot, and the arena for its limit; bytes."""

    fit: Fit

    @property
    def missing_slot(self) -> int:
        return max(0, self.fit.numbers["image_bytes"] - self.fit.numbers["slot_bytes"])

    @property
    def missing_arena(self) -> int:
        return max(0, self.fit.numbers["arena_bytes"] - self.fit.numbers["arena_limit_bytes"])

    @property
    def slot_percent(self) -> float:
        return _percent(self.fit.numbers["image_bytes"], self.fit.numbers["slot_bytes"])

    @property
    def arena_percent(self) -> float:
        return _percent(self.fit.numbers["arena_bytes"], self.fit.numbers["arena_limit_bytes"])

    @property
    def evidence(self) -> str:
        word = str(self.fit.numbers.get("evidence", ""))
        return EVIDENCE.get(word, word)

    @property
    def arena_says(self) -> str:
        """Which evidence the arena goes by, and of how many nodes where they are it."""
        word, said = str(self.fit.numbers.get("evidence", "")), self.fit.numbers.get("measured")
        return f"{word}, {plural(said['arena_nodes'], 'node')}" if word == REPORTED and said else word

    @property
    def latency_says(self) -> str:
        """Of one inference: the worst p99 that nodes measured, else the estimate and its band."""
        latency, said = self.fit.numbers.get("latency"), self.fit.numbers.get("measured")
        if not latency:
            return ""
        low, likely, high = latency["milliseconds"]
        if latency["evidence"] == REPORTED and said:
            return f"p99 {likely:.3g} ms, the worst of {plural(said['p99_nodes'], 'node')}"
        return f"about {likely:.3g} ms, estimated ({low:.3g} to {high:.3g})"

    @property
    def misses_say(self) -> str:
        """Nothing where no node has run the image."""
        said = self.fit.numbers.get("measured")
        if not said:
            return ""
        missed = plural(said["deadline_misses"], "deadline missed", "deadlines missed")
        return f"{missed} in {plural(said['inferences'], 'inference')} of {plural(said['nodes'], 'node')}"


def _percent(part: int, whole: int) -> float:
    """For a bar that ends at its frame."""
    return min(100.0, 100 * part / whole) if whole else 100.0


def version_page(version: ModelVersion, *, wanted_slice: str, now: datetime) -> dict[str, Any]:
    """`wanted_slice` names the slice whose decisions are shown; the worst one that has any without it."""
    images = list(version.images.all())
    fits = [fit for image in images for fit in image.fits.all()]
    by_profile: dict[int, dict[int, FitCell]] = {}
    for fit in fits:
        by_profile.setdefault(fit.profile_id, {})[fit.image_id] = FitCell(fit)
    profiles = {fit.profile_id: fit.profile for fit in fits}
    # What does not fit anywhere stands on top: that is what somebody has to do something about.
    ordered = sorted(
        profiles.items(),
        key=lambda item: (any(cell.fit.fits for cell in by_profile[item[0]].values()), item[1].name),
    )
    building = version.state in (VersionState.UPLOADED, VersionState.BUILDING) or version.judge_again
    return {
        "version": version,
        "images": images,
        "image_rows": sorted(
            (ImageRow(image, _profiles_of(image), image.facts.get("noise_db")) for image in images),
            key=lambda row: not row.profiles,
        ),
        "curve": efficient(version.evidence.get("curve", [])),
        "left_out": version.evidence.get("left_out", []),
        "fp32_latency": version.evidence.get("fp32_latency_ms"),
        "fit_rows": [(profile, [by_profile[pk].get(image.pk) for image in images]) for pk, profile in ordered],
        "lacking": profiles_lacking(images) if version.state == VersionState.READY else [],
        "evidence": sorted({FitCell(fit).evidence for fit in fits}),
        "reports": [_report(image, wanted_slice) for image in proved(images)],
        "building": building,
        "progress": build_progress(version, now=now) if building else None,
        "verdict": version_verdict(version, fits, images),
    }


def build_progress(version: ModelVersion, *, now: datetime) -> dict[str, Any]:
    """Rate in percent a minute over this attempt; seconds left by what earlier builds took, else by that rate."""
    started, percent = version.build_started_at, version.progress_percent
    if version.state != VersionState.BUILDING or started is None:
        return {"ahead": updates.builds_ahead(version.pk)}
    elapsed = max(0.0, (now - started).total_seconds())
    usual = updates.usual_build_seconds()
    if usual is not None and usual > elapsed:
        left: float | None = usual - elapsed
    else:
        left = elapsed * (100 - percent) / percent if percent else None
    return {
        "elapsed": elapsed,
        "rate": 60 * percent / elapsed if elapsed else None,
        "left": left,
        "usual": usual,
    }


def _slices(image: ModelImage) -> list[dict[str, Any]]:
    """With the change of accuracy, and Wilson's interval of the quantized one."""
    return [
        {
            **one,
            "change": one["accuracy_int8"] - one["accuracy_fp32"] if one.get("accuracy_int8") is not None else None,
            "interval": wilson(round(one["accuracy_int8"] * one["n"]), one["n"])
            if one.get("accuracy_int8") is not None
            else None,
            "worst_name": _class_name(image, one.get("worst_class")),
            **_measured(one),
        }
        for one in image.validation.slices
    ]


def _measured(one: dict[str, Any]) -> dict[str, Any]:
    """The number of a slice without classes, for both sides, and what it is called."""
    for field, name in (("auc", "area under the curve"), ("error", "root mean square error")):
        if one.get(f"{field}_int8") is not None:
            return {
                "measure": name,
                "measure_fp32": f"{one[f'{field}_fp32']:.4g}",
                "measure_int8": f"{one[f'{field}_int8']:.4g}",
            }
    return {"measure": "", "measure_fp32": "", "measure_int8": ""}


def _report(image: ModelImage, wanted_slice: str) -> dict[str, Any]:
    """Slices worst first; confusion matrices and flipped samples of one of them."""
    slices = _slices(image)
    slices.sort(key=lambda one: (_SEVERITY.get(one["verdict"], 0), one["change"] or 0, one["name"]))
    named = [one for one in slices if one["name"] == wanted_slice]
    shown = next((one for one in [*named, *slices] if one.get("confusion_fp32")), None)
    return {
        "image": image,
        "slices": slices,
        "confused": shown,
        "names": _class_names(image, len(shown["confusion_fp32"])) if shown else [],
        "matrices": _matrices(image, shown) if shown else [],
        "flips": _flips(image, shown) if shown else [],
        "flip_count": shown.get("flip_count") if shown else None,
    }


def _flips(image: ModelImage, one: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "index": flip["index"],
            **{side: _class_name(image, flip[side]) for side in ("label", "fp32", "int8")},
            "points": outline_points(flip.get("outline", ())),
        }
        for flip in one.get("flips", ())
    ]


def _matrices(image: ModelImage, one: dict[str, Any]) -> list[tuple[str, list[ConfusionRow]]]:
    names = _class_names(image, len(one["confusion_fp32"]))
    return [
        ("fp32, the baseline", confusion(one["confusion_fp32"], names)),
        (
            f"{image.precision}, as the runtime decides, and the change",
            confusion(one["confusion_int8"], names, one["confusion_fp32"]),
        ),
    ]


def _class_names(image: ModelImage, count: int) -> list[str]:
    names = image.version.family.class_names
    return [str(names[index]) if index < len(names) else f"class {index}" for index in range(count)]


def _class_name(image: ModelImage, index: int | None) -> str:
    return "" if index is None else _class_names(image, index + 1)[index]


def dossier_page(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its times read again, and a sentence on top."""
    version = document["version"]
    name = f"{version['family']} {version['name']}"
    verdicts = [one["verdict"] for one in document["validation"]]
    shipped = sum(document["nodes"].values())
    words = f"{plural(len(document['images']), 'image')}, {verdicts.count('passed')} of them passed validation"
    run = f"{plural(shipped, 'node runs', 'nodes run')} it."
    css, icon = ("is-confirmed", "s-confirmed") if version["state"] == VersionState.READY else ("is-none", "i-info")
    return {
        "document": document,
        "name": name,
        "made_at": datetime.fromisoformat(document["made_at"]),
        "verdict": Verdict(css, icon, f"{name} is {version['state']}: {words}.", run),
    }


def comparison_verdict(found: Comparison) -> Verdict:
    worse = [row for row in found.slices if row.finding == "worse"]
    better = [row for row in found.slices if row.finding == "better"]
    lost = [row.profile.name for row in found.profiles if row.a and row.a.fits and not (row.b and row.b.fits)]
    judged = [row for row in found.slices if row.difference is not None]
    if not any(pair.a and pair.b for pair in found.images):
        return Verdict(
            "is-inconclusive",
            "s-inconclusive",
            f"{found.a} and {found.b} have no images of one target class to compare.",
            "A version has images once its build got that far.",
        )
    if not all(pair.same_contract for pair in found.images if pair.a and pair.b):
        return Verdict(
            "is-fail",
            "s-failed",
            f"{found.b.name} takes other inputs or gives other outputs than {found.a.name}: no node can change over.",
            "Firmware for the new contract has to be there first.",
        )
    if worse or lost:
        what = [f"decides worse in {plural(len(worse), 'slice')}"] if worse else []
        what += [f"no longer fits {', '.join(lost)}"] if lost else []
        return Verdict(
            "is-held",
            "s-tight",
            f"{found.b} {' and '.join(what)} than {found.a}."
            if worse
            else f"{found.b} {' and '.join(what)}, which {found.a.name} does.",
        )
    if better:
        return Verdict(
            "is-confirmed",
            "s-confirmed",
            f"{found.b} decides better than {found.a} in {plural(len(better), 'slice')}, and worse in none.",
        )
    if not judged:
        return Verdict("is-none", "i-model", f"{found.a} and {found.b} have no slice with classes to compare.")
    return Verdict(
        "is-none", "i-model", f"No slice shows a difference between {found.a} and {found.b} that chance could not make."
    )


def patches_verdict(states: dict[str, int]) -> Verdict:
    ready, waiting, failed = states["ready"], states["waiting"], states["failed"]
    if failed:
        rest = f"{plural(ready, 'patch is', 'patches are')} ready, {waiting:,} waiting."
        return Verdict(
            "is-failed",
            "s-failed",
            f"{plural(failed, 'patch', 'patches')} could not be built.",
            f"Nodes that hold their base get the full image instead. {rest}",
        )
    if waiting:
        return Verdict(
            "is-moving", "s-trial", f"{plural(waiting, 'patch is', 'patches are')} being built, {ready:,} are ready."
        )
    if not ready:
        return Verdict(
            "is-planned",
            "s-planned",
            "No patch has been asked for yet.",
            "A plan asks for one from each image that nodes hold, and for the way back.",
        )
    return Verdict("is-confirmed", "s-confirmed", f"All {plural(ready, 'patch is', 'patches are')} ready.")
