from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.pipeline.statistics import wilson
from updates.pipeline.types import Refused, ValidationLimits
from updates.pipeline.validate import check_labels, compare, outline, validate

LIMITS = ValidationLimits(
    minimum_samples=100, minimum_class_samples=50, maximum_accuracy_drop=0.02, minimum_agreement=0.95,
    maximum_class_recall_drop=0.04,
)  # fmt: skip


def outputs(decisions: np.ndarray) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[decisions]


def result(wrong: int, *, n: int = 100, limits: ValidationLimits = LIMITS):
    """n samples, half of each class; the quantized side gets `wrong` of class 0 wrong."""
    labels = np.arange(n) % 2
    decided = labels.copy()
    decided[np.flatnonzero(labels == 0)[:wrong]] = 1
    return compare("clean", outputs(labels), outputs(decided), labels, limits)


def test_equal_decisions_pass():
    found = result(0)

    assert (found.verdict, found.agreement, found.accuracy_int8) == ("passed", 1.0, 1.0)
    assert found.sqnr_db == float("inf")


def test_one_wrong_decision_more_flips_the_verdict():
    assert result(2).verdict == "passed"
    failed = result(3)
    assert failed.verdict == "failed"
    assert any("Accuracy falls from 1.000 to 0.970 (n = 100)" in reason for reason in failed.reasons)
    assert (failed.worst_class, failed.worst_class_n, failed.worst_recall_int8) == (0, 50, 0.94)
    assert failed.confusion_int8 == ((47, 3), (0, 50))


def test_one_sample_less_is_inconclusive_and_never_passed():
    limits = ValidationLimits(minimum_samples=100, minimum_class_samples=10)

    assert result(0, n=100, limits=limits).verdict == "passed"
    few = result(0, n=99, limits=limits)
    assert few.verdict == "inconclusive"
    assert "99" in few.reasons[0]
    assert result(0, n=98, limits=LIMITS).verdict == "inconclusive"


def test_a_class_without_enough_samples_is_inconclusive_and_named():
    labels = np.zeros(100, np.int64)

    found = compare("clean", outputs(labels), outputs(labels), labels, LIMITS)

    assert found.verdict == "inconclusive"
    assert "class 1 (0)" in found.reasons[0]


def test_better_accuracy_does_not_hide_changed_decisions():
    labels = np.arange(200) % 2
    before, after = labels.copy(), labels.copy()
    before[:11] ^= 1

    found = compare("noise", outputs(before), outputs(after), labels, LIMITS)

    assert found.accuracy_int8 > found.accuracy_fp32
    assert found.verdict == "failed"
    assert "agree" in found.reasons[0]


def test_one_class_that_loses_fails_even_where_accuracy_holds():
    labels = np.repeat([0, 1], [50, 950])
    decided = labels.copy()
    decided[:3] = 1

    found = compare("clean", outputs(labels), outputs(decided), labels, LIMITS)

    assert found.verdict == "failed"
    assert "Recall of class 0 falls by 0.060 (n = 50)" in found.reasons[0]


def test_the_worst_slice_decides():
    assert validate([result(0), result(3)]).verdict == "failed"
    assert validate([result(0), result(0, n=50)]).verdict == "inconclusive"
    assert validate([result(0), result(1)]).verdict == "passed"
    assert validate([]).verdict == "inconclusive"


def test_without_labels_the_noise_decides():
    signal = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)

    assert compare("clean", signal, signal * 1.1, None, LIMITS).verdict == "passed"  # 20 dB
    assert compare("clean", signal, signal * 1.3, None, LIMITS).verdict == "failed"  # 10 dB


def test_float_labels_give_an_error_for_each_side():
    wanted = np.zeros((100, 1), np.float32)

    found = compare("clean", wanted + 0.3, wanted + 0.4, wanted[:, 0], ValidationLimits(minimum_sqnr_db=5))

    assert (found.error_fp32, found.error_int8) == (pytest.approx(0.3), pytest.approx(0.4))


def test_a_label_beyond_the_outputs_is_refused():
    with pytest.raises(Refused) as caught:
        compare("hum", outputs(np.zeros(3, np.int64)), outputs(np.zeros(3, np.int64)), np.array([0, 1, 2]), LIMITS)

    assert (caught.value.stage, caught.value.field) == ("validate", "evaluation: labels of hum")
    assert str(caught.value).endswith("class 2 of sample 2 among 2 outputs; use 0 to 1.")


@pytest.mark.parametrize(
    ("task", "labels", "said"),
    [
        ("classification", np.zeros((4, 2), np.float32), "float32 is no class number; store integers"),
        ("anomaly", np.zeros((4, 2), np.float32), "8 values for 4 samples; store 0"),
        ("regression", np.zeros(4, np.int64), "class numbers, but the task is regression; store floats"),
        ("regression", np.zeros((4, 3), np.float32), "12 values for 8 outputs; store one wanted output"),
        (None, np.array([0, 1, 5, 1]), "class 5 of sample 2 among 2 outputs; use 0 to 1"),
    ],
)
def test_labels_that_do_not_suit_the_task_are_refused_with_value_and_fix(task, labels, said):
    with pytest.raises(Refused) as caught:
        check_labels("clean", labels, outputs=2, inputs=7, task=task)

    assert (caught.value.code, caught.value.field) == ("labels", "evaluation: labels of clean")
    assert said in str(caught.value)


def test_labels_that_suit_tell_the_task():
    ones = np.array([0, 1, 1])

    assert check_labels("clean", ones, outputs=3, inputs=7, task=None) == "classification"
    assert check_labels("clean", ones, outputs=7, inputs=7, task=None) == "anomaly"
    assert check_labels("clean", ones, outputs=7, inputs=7, task="classification") == "classification"
    assert check_labels("clean", np.zeros((3, 1), np.float32), outputs=1, inputs=7, task=None) == "regression"
    assert check_labels("clean", None, outputs=1, inputs=7, task=None) == "regression"


@pytest.mark.parametrize(
    ("errors", "verdict", "misses"),
    [
        ((0.1, 0.2, 0.3), "passed", 0),
        ((0.2, 0.2, 0.3), "passed", 0),  # twice its own, but no more than the slice may have
        ((0.1, 0.2, 0.32), "passed", 0),  # more than that, but not by a tenth of its own
        ((0.1, 0.2, 0.34), "failed", 1),
        ((0.31, 0.31, 0.3), "failed", 2),
    ],
)
def test_one_sample_of_a_regression_that_outgrows_what_is_allowed_fails_a_zero_miss_slice(errors, verdict, misses):
    """fp32 errs by 0.1, 0.2 and 0.3, a root mean square of 0.216: the slice may have 0.238, the last sample 0.33."""
    wanted = np.full((3, 1), 0.5, np.float32)
    fp32 = wanted + np.array([[0.1], [0.2], [0.3]], np.float32)
    limits = ValidationLimits(zero_miss=("surge",), maximum_error_increase=0.1)

    found = compare("surge", fp32, wanted + np.array(errors, np.float32)[:, None], wanted, limits)

    assert (found.verdict, found.misses) == (verdict, misses)


def test_a_slice_that_allows_no_miss_never_passes_without_labels_however_alike_the_outputs():
    same = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)

    assert compare("clean", same, same, None, LIMITS).verdict == "passed"
    blind = compare("zero-miss-arc", same, same, None, LIMITS)
    assert (blind.verdict, "none can be counted" in blind.reasons[-1]) == ("inconclusive", True)
    assert compare("zero-miss-arc", same, same * 2, None, LIMITS).verdict == "failed"


def test_wilsons_interval_matches_its_published_values():
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_holds_the_proportion(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)

    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


def test_flipped_samples_are_named_by_index_those_that_were_right_first_and_no_more_than_fifty():
    labels = np.zeros(300, np.int64)
    fp32 = labels.copy()
    fp32[[3, 5]] = 1
    int8 = labels.copy()
    int8[200:] = 1

    found = compare("clean", outputs(fp32), outputs(int8), labels, LIMITS)

    assert found.flip_count == 102
    assert [flip.index for flip in found.flips] == list(range(200, 250))
    assert (found.flips[0].label, found.flips[0].fp32, found.flips[0].int8) == (0, 0, 1)


def test_a_flip_from_wrong_to_right_comes_after_what_was_lost():
    labels = np.zeros(100, np.int64)
    fp32, int8 = labels.copy(), labels.copy()
    fp32[3] = 1
    int8[90] = 1

    assert [flip.index for flip in compare("clean", outputs(fp32), outputs(int8), labels, LIMITS).flips] == [90, 3]


def test_matrices_of_more_than_64_classes_are_not_kept():
    def decided(classes: int):
        labels = np.arange(classes * 2) % classes
        scores = np.eye(classes, dtype=np.float32)[labels]
        return compare("clean", scores, scores, labels, LIMITS)

    assert len(decided(64).confusion_int8) == 64
    assert decided(65).confusion_int8 == ()


def test_one_wrong_decision_fails_a_zero_miss_slice_whatever_its_size_and_none_passes_it():
    labels = np.array([0, 1, 1])
    wrong = np.array([0, 1, 0])

    for name, limits in (("zero-miss-arc", LIMITS), ("arc", ValidationLimits(zero_miss=("arc",)))):
        assert compare(name, outputs(labels), outputs(labels), labels, limits).verdict == "passed"
        missed = compare(name, outputs(labels), outputs(wrong), labels, limits)
        assert missed.verdict == "failed"
        assert missed.reasons == ("1 of 3 decisions are wrong, and this slice allows no miss.",)


def test_a_miss_of_both_networks_is_a_miss():
    labels, decided = np.array([1, 1]), np.array([1, 0])

    assert compare("zero-miss", outputs(decided), outputs(decided), labels, LIMITS).misses == 1


def test_made_slices_are_held_to_looser_limits_unless_the_owner_sets_others():
    labels = np.arange(100) % 2
    decided = labels.copy()
    decided[:4] ^= 1

    def verdict(limits: ValidationLimits, perturbed: bool) -> str:
        return compare("dropouts", outputs(labels), outputs(decided), labels, limits, perturbed=perturbed).verdict

    plain, strict = ValidationLimits(), ValidationLimits(slices={"dropouts": {"maximum_accuracy_drop": 0.03}})
    assert verdict(plain, False) == "failed"
    assert verdict(plain, True) == "passed"
    assert verdict(strict, True) == "failed"


def test_the_statistics_of_a_slice_are_those_of_their_definitions():
    labels = np.zeros(100, np.int64)
    after = labels.copy()
    after[:3] = 1

    found = compare("clean", outputs(labels), outputs(after), labels, LIMITS)

    assert found.accuracy_interval == wilson(97, 100)
    assert found.mcnemar_p == pytest.approx(0.25)  # three of three: 2 * 0.5 ** 3
    assert found.kl > 0
    assert (found.calibration_fp32, found.calibration_int8) == (pytest.approx(0), pytest.approx(0.03))


RANDOM = np.random.default_rng(3)
WINDOWS = RANDOM.normal(size=(200, 16)).astype(np.float32)
ANOMALOUS = (np.arange(200) % 4 == 0).astype(np.int64)
ERRORS = RANDOM.normal(size=(200, 16)) * np.where(ANOMALOUS == 1, 1.0, 0.1)[:, None]
RECONSTRUCTED = WINDOWS + ERRORS.astype(np.float32)


def test_an_autoencoder_is_judged_by_its_score_and_not_by_its_largest_output():
    found = compare("clean", RECONSTRUCTED, RECONSTRUCTED + 0.001, ANOMALOUS, ValidationLimits(), inputs=WINDOWS)

    assert (found.task, found.verdict, found.auc_fp32, found.auc_int8) == ("anomaly", "passed", 1.0, 1.0)
    normal = np.sort(np.square(ERRORS).mean(1)[ANOMALOUS == 0])
    assert found.threshold_fp32 == pytest.approx(normal[-8], rel=1e-3)  # 7 of 150 are above: at most 5 %
    assert found.threshold_int8 != found.threshold_fp32
    assert found.accuracy_int8 is None


def test_an_autoencoder_whose_scores_move_together_fails_by_the_alarms_at_the_old_threshold():
    """The area under the curve is as good as before, and every window raises an alarm."""
    found = compare("clean", RECONSTRUCTED, RECONSTRUCTED + 0.3, ANOMALOUS, ValidationLimits(), inputs=WINDOWS)

    assert found.auc_int8 == 1.0
    assert found.verdict == "failed"
    assert "alarms agree at the threshold of fp32" in found.reasons[0]


def test_an_autoencoder_that_tells_less_apart_fails_by_the_area_under_its_curve():
    blind = WINDOWS + RANDOM.normal(0.5, 0.3, size=(200, 1)).astype(np.float32)

    found = compare("clean", RECONSTRUCTED, blind, ANOMALOUS, ValidationLimits(), inputs=WINDOWS)

    assert any(reason.startswith("The area under the curve falls from 1.000") for reason in found.reasons)


def test_one_output_with_labels_0_and_1_is_an_anomaly_score():
    scores = ANOMALOUS[:, None].astype(np.float32) * 0.8 + 0.1

    assert compare("clean", scores, scores, ANOMALOUS, ValidationLimits(), inputs=WINDOWS).auc_int8 == 1.0


@pytest.mark.parametrize(("worse", "verdict"), [(16, "passed"), (17, "failed")])
def test_a_regression_fails_by_the_growth_of_its_error_and_one_sample_decides(worse, verdict):
    """k of 100 errors of 0.3 among 0.2: a root mean square of sqrt(0.04 + 0.05 k / 100), to 0.22 is allowed."""
    wanted = np.linspace(1, 2, 100)[:, None].astype(np.float32)
    after = wanted + np.where(np.arange(100) < worse, 0.3, 0.2)[:, None].astype(np.float32)

    found = compare("clean", wanted + np.float32(0.2), after, wanted, ValidationLimits(minimum_sqnr_db=0))

    assert (found.task, found.verdict) == ("regression", verdict)


def test_quantization_noise_far_below_the_labels_is_no_growth_of_the_error():
    wanted = np.linspace(1, 2, 100, dtype=np.float32)[:, None]

    assert compare("clean", wanted, wanted + 0.01, wanted, ValidationLimits()).verdict == "passed"
    assert compare("clean", wanted, wanted + 0.1, wanted, ValidationLimits()).verdict == "failed"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minimum_sample": 5}, "limits: 'minimum_sample' is unknown; use minimum_samples"),
        ({"minimum_samples": "5"}, "limits.minimum_samples: '5' is no number"),
        ({"zero_miss": "arc"}, "limits.zero_miss: 'arc' is no list"),
        ({"slices": {"hum": 3}}, "limits.slices: it is no table"),
        ({"slices": {"hum": {"agree": 1}}}, "limits.slices.hum: 'agree' is unknown"),
    ],
)
def test_a_bad_limit_is_named_with_its_fix(given, said):
    with pytest.raises(ValueError, match="limits") as caught:
        ValidationLimits.of(given)
    assert str(caught.value).startswith(said)


def test_alarms_of_a_zero_miss_slice_go_by_the_threshold_of_the_clean_one():
    """It has no normal samples of its own."""
    clean = compare("clean", RECONSTRUCTED, RECONSTRUCTED, ANOMALOUS, ValidationLimits(), inputs=WINDOWS)
    rare = ANOMALOUS == 1

    def found(int8: np.ndarray):
        return compare(
            "zero-miss-bearing",
            RECONSTRUCTED[rare],
            int8,
            ANOMALOUS[rare],
            ValidationLimits(),
            inputs=WINDOWS[rare],
            threshold=clean.threshold_fp32,
        )

    assert (found(RECONSTRUCTED[rare]).verdict, found(RECONSTRUCTED[rare]).threshold_fp32) == ("passed", None)
    blind = RECONSTRUCTED[rare].copy()
    blind[0] = WINDOWS[rare][0]
    assert found(blind).reasons == (f"1 of {rare.sum()} decisions are wrong, and this slice allows no miss.",)


def test_a_sample_is_outlined_along_its_time_axis_in_64_steps_at_most():
    ramp = np.broadcast_to(np.arange(640, dtype=np.float32), (3, 640))

    drawn = outline(ramp, 1)

    assert (len(drawn), drawn[0], drawn[-1]) == (64, 0, 100)
    assert list(drawn) == sorted(drawn)
    assert len(outline(ramp[:, :5], None)) == 15
    assert set(outline(np.zeros((2, 4), np.float32), None)) == {50}
