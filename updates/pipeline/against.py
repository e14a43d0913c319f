"""Against the deployed image: images of the new version near it, and which of them ships instead of the plain one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from updates.pipeline import child, imaging
from updates.pipeline.bench import Bench, room_below, side_by_side
from updates.pipeline.deployed_rounding import Limit, Rounded, finer, metric_of
from updates.pipeline.types import Against, Choice, CurvePoint, Fit, Image, Profile, Refused, ValidationReport

# Points that may be tried before the plain image goes: each is a validation on all slices.
_MOST_TRIED = 3
# One hardly larger than one that failed would fail too.
_NEXT_TRY = 1.3


@dataclass(frozen=True)
class Found:
    """images: with the near one in the place of the plain one of its target class, where one ships. reports: of it."""

    images: tuple[Image, ...] = ()
    choices: tuple[Choice, ...] = ()
    reports: dict[str, ValidationReport] = field(default_factory=dict)
    points: tuple[CurvePoint, ...] = ()
    refusal: str = ""


def near_deployed(
    bench: Bench,
    images: Sequence[Image],
    choices: Sequence[Choice],
    against: Against,
    fit_image: Callable[[Image, Profile], Fit],
) -> Found:
    """The curve, and the smallest patch within the owner's limit that passes on every slice: validation is of the exact
    image that ships. Profiles that it fits get it."""
    (bench.directory / "base.tflite").write_bytes(against.base)
    wanted = [choice.digest for choice in choices]
    ordered = sorted(images, key=lambda image: -wanted.count(image.digest))
    refusals = []
    for plain in ordered:
        try:
            rounded = _rounded(bench, plain)
            break
        except Refused as refused:
            if refused.stage != "against":
                raise
            refusals.append(str(refused))
    else:
        return Found(tuple(images), tuple(choices), {}, (), refusals[0])
    measured = _points(bench, plain, rounded, against, {plain.data})
    known = {plain.data, *(point.data for point in measured)}
    measured += _points(bench, plain, _between(bench, plain, measured), against, known)
    measured.append(_point(bench, against, Rounded(0.0, "new", plain.data), bench.rooms[plain.digest] / "int8-0.npy"))
    points = tuple(sorted(measured, key=lambda point: (point.patch_bytes, point.loss, point.digest)))
    tried, least = 0, 0.0
    for point in points:
        if tried == _MOST_TRIED or not point.within_limit or point.patch_bytes < least:
            continue
        tried, least = tried + 1, _NEXT_TRY * point.patch_bytes
        image = plain if point.strength == 0 else _image(bench, plain, point, tried)
        report = bench.proved(image)
        if report.verdict != "passed":
            continue
        marked = tuple(replace(one, chosen=one is point) for one in points)
        named = _smaller(point, points)
        given = tuple(
            _given(choice, profile, plain, image, report, fit_image, named)
            for choice, profile in zip(choices, bench.request.profiles, strict=True)
        )
        kept = tuple(image if one is plain else one for one in images)
        return Found(kept, given, {image.digest: report}, marked)
    return Found(
        tuple(images),
        tuple(choices),
        {},
        tuple(replace(one, chosen=one.strength == 0 and plain.digest in wanted) for one in points),
    )


def _rounded(bench: Bench, plain: Image, **wanted: object) -> list[Rounded]:
    """wanted: `strengths` and `activations` where the defaults will not do."""
    room = room_below(bench.directory, f"near-{plain.digest[:12]}" + "-finer" * bool(wanted))
    (room / "image.tflite").write_bytes(plain.data)
    made = child.run("against", "updates.pipeline.deployed_rounding:stage", room, bench.layout | wanted)
    return [Rounded(one["strength"], one["activations"], (room / one["file"]).read_bytes()) for one in made["rounded"]]


def _between(bench: Bench, plain: Image, points: Sequence[CurvePoint]) -> list[Rounded]:
    """More of them near the limit, where the curve is what the owner asked for."""
    near = min((one for one in points if one.within_limit), key=lambda point: point.patch_bytes, default=None)
    if near is None:
        return []
    strengths = finer(near.strength, [one.strength for one in points if one.activations == near.activations])
    return _rounded(bench, plain, strengths=strengths, activations=[near.activations]) if strengths else []


def _points(
    bench: Bench, plain: Image, rounded: Sequence[Rounded], against: Against, known: set[bytes]
) -> list[CurvePoint]:
    """Of images that came out alike one, of `known` ones none."""
    distinct = list({one.image: one for one in rounded if one.image not in known}.values())

    def outputs(one: Rounded) -> Callable[[Callable[[str], None]], Path]:
        room = room_below(bench.directory, f"point-{hashlib.sha256(one.image).hexdigest()}")
        (room / "image.tflite").write_bytes(one.image)
        arguments = bench.layout | {"slices": [0], "arena_bytes": plain.arena_bytes}

        def run(begin: Callable[[str], None]) -> Path:
            child.run("against", "updates.pipeline.judge:decide_stage", room, arguments)
            return room / "int8-0.npy"

        return run

    points = []
    for one, path in zip(distinct, side_by_side([outputs(one) for one in distinct], bench.begin), strict=True):
        if isinstance(path, Refused):
            raise path
        points.append(_point(bench, against, one, path))
    return points


def _point(bench: Bench, against: Against, one: Rounded, path: Path) -> CurvePoint:
    """path: what the image gives on the clean slice."""
    baseline = np.load(bench.directory / "fp32-0.npy")
    labels = np.load(bench.directory / "labels-0.npy") if bench.slices[0]["labels"] else None
    limits = bench.request.limits
    metric = metric_of(np.load(path), baseline, labels)
    return CurvePoint(
        data=one.image,
        digest=hashlib.sha256(one.image).hexdigest(),
        strength=one.strength,
        activations=one.activations,
        patch_bytes=against.patch_bytes(one.image),
        metric=metric.name,
        reference=metric.reference,
        value=metric.value,
        loss=metric.loss,
        within_limit=Limit(limits.curve_accuracy_drop, limits.curve_error_growth).keeps(metric),
    )


def _image(bench: Bench, plain: Image, point: CurvePoint, number: int) -> Image:
    """The point as an image, judged and shown the uploaded slices."""
    room = room_below(bench.directory, f"shipping-{number}")
    (room / "image.tflite").write_bytes(point.data)
    uploaded = [index for index, one in enumerate(bench.slices) if not one.get("perturbed")]
    facts = child.run("judge", "updates.pipeline.judge:stage", room, bench.layout | {"slices": uploaded})
    image = imaging.described(
        point.data, plain.target, facts, list(plain.operators), preprocessing=bench.request.preprocessing
    )
    bench.rooms[image.digest] = room
    return image


def _smaller(point: CurvePoint, points: Sequence[CurvePoint]) -> str:
    plain = next(one for one in points if one.strength == 0)
    return (
        f"Near the deployed image: a patch of {point.patch_bytes} bytes instead of {plain.patch_bytes}, for a loss of "
        f"{point.loss:.4f} in {point.metric}."
    )


def _given(
    choice: Choice,
    profile: Profile,
    plain: Image,
    image: Image,
    report: ValidationReport,
    fit_image: Callable[[Image, Profile], Fit],
    reason: str,
) -> Choice:
    found = fit_image(image, profile)
    near = next(one for one in choice.alternatives if one.digest == plain.digest)
    weighed = replace(
        near,
        digest=image.digest,
        fits=found.fits,
        verdict=report.verdict,
        sqnr_db=min(one.sqnr_db for one in report.slices),
        arena_bytes=found.arena_bytes,
        image_bytes=found.image_bytes,
    )
    others = tuple(one for one in choice.alternatives if one is not near)
    if not found.fits:
        return replace(choice, alternatives=(*others, weighed))
    return Choice(choice.profile, image.digest, (weighed, *others), reason)
