from __future__ import annotations

import dataclasses

import pytest

from updates.pipeline.choice import candidates, choose
from updates.pipeline.quantize import check_target
from updates.pipeline.types import Fit, HeldClass, Image, Profile, SliceResult, TargetClass, ValidationReport

PROFILE = Profile("small")
BLANK = {
    field.name: None
    for field in dataclasses.fields(SliceResult)
    if field.name not in ("name", "verdict", "n", "sqnr_db", "reasons")
}


def image(digest: str, *, precision: str = "int8") -> Image:
    rest = {field.name: None for field in dataclasses.fields(Image) if field.name not in ("target", "digest")}
    return Image(target=TargetClass(precision=precision), digest=digest, **rest)  # type: ignore[arg-type]


def fit(*, fits: bool = True, arena: int = 100, size: int = 10, profile: str = "small") -> Fit:
    reasons = () if fits else ("The arena needs 100 bytes too many.",)
    return Fit(profile, fits, size, 1000, arena, 1000, "tflm-bisected-x86", {}, reasons)


def report(*noise: float, verdict: str = "passed") -> ValidationReport:
    slices = tuple(
        SliceResult(name=str(index), verdict=verdict, n=100, sqnr_db=value, reasons=(), **BLANK)  # type: ignore[arg-type]
        for index, value in enumerate(noise)
    )
    return ValidationReport(verdict, slices, ())  # type: ignore[arg-type]


def chosen(held: HeldClass | None = None, **weighed: tuple[Fit, ValidationReport]) -> str | None:
    """An image whose name begins with the name of a precision has that one."""
    images = [image(digest, precision="int4" if digest.startswith("int4") else "int8") for digest in weighed]
    fits = {digest: (one,) for digest, (one, _) in weighed.items()}
    return choose(PROFILE, images, fits, {digest: one for digest, (_, one) in weighed.items()}, held=held).digest


def test_the_most_accurate_that_fits_is_chosen_not_the_most_accurate():
    assert chosen(wide=(fit(fits=False), report(50)), a=(fit(), report(30)), b=(fit(), report(31))) == "b"


def test_the_worst_slice_counts():
    assert chosen(a=(fit(), report(60, 20)), b=(fit(), report(25, 25))) == "b"


def test_a_passed_verdict_beats_any_noise_figure():
    assert chosen(a=(fit(), report(60, verdict="inconclusive")), b=(fit(), report(20))) == "b"


def test_where_accuracy_is_equal_the_smaller_arena_then_the_smaller_image_wins():
    assert chosen(a=(fit(arena=101), report(30.01)), b=(fit(arena=100), report(30.0))) == "b"
    assert chosen(a=(fit(size=11), report(30)), b=(fit(size=10), report(30))) == "b"


def test_of_equally_accurate_images_the_class_that_nodes_hold_wins_and_of_others_it_does_not():
    held = ("int4", "fc-per-tensor")
    frugal, hungry = (fit(arena=100), report(30)), (fit(arena=900), report(29.6))

    assert chosen(plain=frugal, int4=hungry) == "plain"
    assert chosen(held, plain=frugal, int4=hungry) == "int4"
    assert chosen(held, plain=frugal, int4=(fit(), report(29.4))) == "plain"
    assert chosen(held, plain=frugal, int4=(fit(fits=False), report(30))) == "plain"
    assert chosen(held, plain=frugal, int4=(fit(), report(30, verdict="inconclusive"))) == "plain"
    assert chosen(("int4", "fc-per-channel"), plain=frugal, int4=hungry) == "plain"


def test_where_none_fits_none_is_chosen_and_the_alternatives_are_kept_best_first():
    fits = {"a": (fit(fits=False),), "b": (fit(fits=False),)}

    choice = choose(PROFILE, [image("a"), image("b")], fits, {"a": report(10), "b": report(20)})

    assert choice.digest is None
    assert [one.digest for one in choice.alternatives] == ["b", "a"]
    assert choice.reason == (
        "None of 2 images fits small. The most accurate, int8 (fc-per-tensor): The arena needs 100 bytes too many."
    )


def test_a_profile_of_another_runtime_is_told_what_it_takes():
    foreign = Profile("st", runtime="stm32cubeai")

    choice = choose(foreign, [image("a")], {"a": (fit(fits=False, profile="st"),)}, {"a": report(10)})

    assert (choice.digest, "No image is for stm32cubeai: compile" in choice.reason) == (None, True)


def test_the_order_of_the_images_does_not_matter():
    fits, reports = {"a": (fit(),), "b": (fit(),)}, {"a": report(20), "b": report(20)}

    assert choose(PROFILE, [image("a"), image("b")], fits, reports) == choose(
        PROFILE, [image("b"), image("a")], fits, reports
    )


def test_an_image_without_a_fit_is_an_error():
    with pytest.raises(KeyError, match="not fitted to profile small"):
        choose(PROFILE, [image("a")], {"a": (fit(profile="other"),)}, {"a": report(20)})


def test_every_candidate_is_one_that_the_pipeline_builds_and_the_plainest_comes_first():
    for target in candidates(32):
        check_target(target)
        assert target.alignment == 32

    assert candidates()[0] == TargetClass()
    assert {target.precision for target in candidates()} == {"int8", "int16x8", "int4"}
