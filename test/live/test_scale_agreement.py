"""Odometry whose lengths contradict the depth is refused; noise, slippage for a moment and standing still are not."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.live.scale_agreement import ScaleAgreement


def driven(factors: list[float], noise: float = 0.0) -> str:
    """A camera that goes 10 cm an image; its odometry says that, times the factor of each image."""
    rng, agreement, said = np.random.default_rng(0), ScaleAgreement(), ""
    position, odometry = np.zeros(3), np.zeros(3)
    for factor in factors:
        said = agreement.add(position + noise * rng.normal(size=3), odometry)
        position = position + np.array([0.1, 0.0, 0.0])
        odometry = odometry + np.array([0.0, 0.1 * factor, 0.0])  # its world is another one
    return said


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.15])
def test_what_agrees_is_used(factor: float) -> None:
    assert driven([factor] * 60, noise=0.01) == ""


@pytest.mark.parametrize(("factor", "words"), [(0.5, "0.50 times"), (2.0, "2.00 times"), (1000.0, "1000.00 times")])
def test_what_contradicts_is_named(factor: float, words: str) -> None:
    assert words in driven([factor] * 60)


def test_wheels_that_slip_once_and_a_robot_that_stands_contradict_nothing() -> None:
    assert driven([1.0] * 25 + [4.0] * 3 + [1.0] * 25) == ""
    standing = ScaleAgreement()
    for i in range(100):
        assert standing.add(np.array([1e-3 * (i % 3), 0, 0]), np.zeros(3)) == ""


def test_a_gap_joins_no_two_motions() -> None:
    agreement = ScaleAgreement()
    for _ in range(10):
        agreement.interrupt()
        assert agreement.add(np.zeros(3), np.zeros(3)) == ""
        agreement.interrupt()
        assert agreement.add(np.array([5.0, 0, 0]), np.zeros(3)) == ""
