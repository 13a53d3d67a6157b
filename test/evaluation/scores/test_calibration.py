"""Expected calibration error, Brier score and average precision against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.evaluation.scores.calibration import average_precision, calibration


def test_a_score_that_is_the_probability_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    found = calibration(p, rng.random(len(p)) < p)
    assert found.expected_error < 0.006
    assert found.brier == pytest.approx(1 / 6, abs=0.003)  # the mean of p (1 - p) over [0, 1]
    assert [b.count for b in found.curve] == pytest.approx([len(p) / 15] * 15, abs=1)


def test_a_score_that_is_too_sure_errs_by_the_difference() -> None:
    right = np.arange(1000) % 10 < 6
    found = calibration(np.full(1000, 0.9), right)
    assert found.expected_error == pytest.approx(0.3)
    assert len(found.curve) == 1  # equal scores stay together
    assert found.brier == pytest.approx(0.6 * 0.1**2 + 0.4 * 0.9**2)


def test_bins_hold_equal_counts_where_the_scores_crowd() -> None:
    """Bins of equal width would put 990 of these scores into one and average their errors away."""
    crowded = np.concatenate([np.linspace(0.90, 0.9999, 990), np.full(10, 0.1)])
    right = np.concatenate([np.arange(990) >= 495, np.zeros(10, bool)])  # below the middle all wrong, above all right
    found = calibration(crowded, right, bins=10)
    assert [b.count for b in found.curve] == [100] * 10
    assert found.expected_error > 0.45
    assert sum(b.count * b.share_right for b in found.curve) == 495


def test_the_order_of_the_matches_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    p, right = np.round(rng.random(500), 1), rng.random(500) < 0.5
    shuffled = rng.permutation(500)
    assert calibration(p, right) == calibration(p[shuffled], right[shuffled])


def test_average_precision_of_a_short_list() -> None:
    assert average_precision([0.9, 0.8, 0.7, 0.6], [True, False, True, False]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.5, 0.5], [True, False]) == pytest.approx(0.5)
    assert np.isnan(average_precision([0.5], [False]))


@pytest.mark.parametrize(
    ("score", "right", "words"),
    [([], [], "at least one"), ([0.5], [True, False], "one outcome"), ([1.5], [True], r"\[0, 1\]")],
)
def test_what_cannot_be_judged_is_refused(score: list[float], right: list[bool], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibration(score, right)
