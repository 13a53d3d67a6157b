"""An input whose stamps are of another clock than the images' is named: nothing of it would ever be used."""

from __future__ import annotations

import pytest

from ros2_densematch.live.clocks import Clocks
from ros2_densematch.live.topics import DEPTH, IMAGE, ODOMETRY

SECOND = 10**9


def played(offset_s: float, count: int = 10) -> Clocks:
    """Images and odometry at 10 Hz, the odometry's clock ahead by an offset."""
    clocks = Clocks()
    for i in range(count):
        clocks.heard(IMAGE, 100 * SECOND + i * SECOND // 10, 5.0 + 0.1 * i)
        clocks.heard(ODOMETRY, 100 * SECOND + i * SECOND // 10 + round(offset_s * SECOND), 5.02 + 0.1 * i)
    return clocks


@pytest.mark.parametrize("offset_s", [0.0, 0.3, -0.5])
def test_a_delay_is_no_other_clock(offset_s: float) -> None:
    assert played(offset_s).problem(ODOMETRY) == ""


@pytest.mark.parametrize(("offset_s", "words"), [(3600.0, "3600.0 s ahead of"), (-7.5, "7.5 s behind")])
def test_another_clock_is_named_with_the_remedy(offset_s: float, words: str) -> None:
    problem = played(offset_s).problem(ODOMETRY)
    assert words in problem
    assert "stamp both with one clock" in problem


def test_one_message_out_of_order_and_an_input_without_images_say_nothing() -> None:
    assert played(3600.0, count=4).problem(ODOMETRY) == ""
    clocks = Clocks()
    for i in range(9):
        clocks.heard(DEPTH, i * SECOND, 0.1 * i)
    assert clocks.problem(DEPTH) == ""
