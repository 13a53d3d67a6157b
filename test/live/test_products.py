"""What the node says about an image: the latency is that of one clock."""

from __future__ import annotations

import math

import pytest

from ros2_densematch.live.products import latency_ms

DAY_NS = 86_400 * 10**9


@pytest.mark.parametrize(("age_ns", "expected"), [(0, 0.0), (50_000_000, 50.0), (-2_000_000, -2.0), (10**12, 1e6)])
def test_the_latency_is_the_age_of_the_image(age_ns: int, expected: float) -> None:
    assert latency_ms(100 * DAY_NS, 100 * DAY_NS + age_ns) == pytest.approx(expected)


@pytest.mark.parametrize("age_ns", [DAY_NS, 400 * DAY_NS, -(10**11)], ids=["yesterday", "last year", "clock at zero"])
def test_stamps_of_another_clock_have_no_latency(age_ns: int) -> None:
    """A bag that plays without simulated time, or a node whose simulated clock has not begun."""
    assert math.isnan(latency_ms(1000 * DAY_NS, 1000 * DAY_NS + age_ns))
