"""Which image goes with which depth, right image and odometry, and when it stops waiting for them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ros2_densematch.live.counters import Counters, Drop, SequenceGaps
from ros2_densematch.live.synchroniser import MAX_WAITING, Bundle, LiveSynchroniser

MS = 1_000_000


def image(sync: LiveSynchroniser, stamp_ms: int, now_ms: int) -> list[Bundle]:
    return sync.image(stamp_ms * MS, f"image {stamp_ms}", arrival_ns=now_ms * MS, number=0, now_ns=now_ms * MS)


def depth(sync: LiveSynchroniser, stamp_ms: int, now_ms: int) -> list[Bundle]:
    return sync.companion("depth", stamp_ms * MS, f"depth {stamp_ms}", now_ms * MS)


@pytest.fixture
def sync() -> LiveSynchroniser:
    made = LiveSynchroniser(100 * MS)
    made.expect("depth", 20 * MS)
    return made


def contents(bundles: list[Bundle]) -> list[tuple[str, str | None]]:
    return [(b.message, b.companions.get("depth")) for b in bundles]


def test_without_companions_images_pass_at_once(sync: LiveSynchroniser) -> None:
    assert contents(image(sync, 1000, 1001)) == [("image 1000", None)]
    assert sync.waiting == 0


def test_an_image_waits_for_the_depth_that_somebody_publishes(sync: LiveSynchroniser) -> None:
    assert sync.not_offered() == ["depth"]
    sync.offered("depth")
    assert sync.not_offered() == []
    assert image(sync, 1000, 1001) == []
    assert contents(depth(sync, 1005, 1030)) == [("image 1000", "depth 1005")]


def test_depth_that_came_first_is_taken_at_once_and_the_nearest_wins(sync: LiveSynchroniser) -> None:
    depth(sync, 985, 986)
    depth(sync, 1003, 1004)
    assert contents(image(sync, 1000, 1005)) == [("image 1000", "depth 1003")]


def test_depth_too_far_in_time_is_not_taken(sync: LiveSynchroniser) -> None:
    depth(sync, 970, 971)
    assert image(sync, 1000, 1001) == []
    assert contents(depth(sync, 1040, 1041)) == [("image 1000", None)]


def info(sync: LiveSynchroniser, stamp_ms: int, now_ms: int) -> list[Bundle]:
    return sync.companion("info", stamp_ms * MS, f"info {stamp_ms}", now_ms * MS)


def test_an_image_waits_for_the_calibration_of_its_own_stamp() -> None:
    sync = LiveSynchroniser(100 * MS)
    sync.expect("info", 0, pairs_only=True)
    for stamp in (1000, 1100):
        info(sync, stamp - 100, stamp - 95)
        assert image(sync, stamp, stamp + 1) == []
        assert [b.companions for b in info(sync, stamp, stamp + 5)] == [{"info": f"info {stamp}"}]


def test_nobody_waits_for_a_calibration_that_does_not_come_with_every_image() -> None:
    sync = LiveSynchroniser(100 * MS)
    sync.expect("info", 0, pairs_only=True)
    info(sync, 900, 1000)  # sent once, before
    assert image(sync, 1000, 1001) == []
    assert len(sync.release(1101 * MS)) == 1  # the first image waits in vain
    for stamp in (1110, 1210, 1310):
        assert len(image(sync, stamp, stamp + 1)) == 1
    # one that comes with the image, though late, is waited for again
    info(sync, 1310, 1340)
    assert image(sync, 1410, 1411) == []
    assert len(info(sync, 1410, 1420)) == 1


def test_the_wait_ends(sync: LiveSynchroniser) -> None:
    depth(sync, 900, 900)
    assert image(sync, 1000, 1000) == []
    assert sync.release(1099 * MS) == []
    assert contents(sync.release(1100 * MS)) == [("image 1000", None)]


def test_a_silent_companion_is_not_waited_for(sync: LiveSynchroniser) -> None:
    depth(sync, 900, 900)
    assert image(sync, 1000, 1000) == []
    assert contents(sync.release(1100 * MS)) == [("image 1000", None)]
    assert image(sync, 2900, 2900) == []
    assert contents(sync.release(3001 * MS)) == [("image 2900", None)]
    assert contents(image(sync, 3100, 3100)) == [("image 3100", None)]
    # it is waited for again once it sends something
    depth(sync, 3150, 3200)
    assert image(sync, 3250, 3250) == []
    assert contents(depth(sync, 3251, 3260)) == [("image 3250", "depth 3251")]


def test_depth_is_waited_for_after_a_pause_in_which_no_image_came_either(sync: LiveSynchroniser) -> None:
    """After a pause the first image went without its depth, because that had been silent for 2 s: so had the images."""
    depth(sync, 900, 900)
    assert contents(image(sync, 900, 901)) == [("image 900", "depth 900")]
    assert image(sync, 60_000, 60_000) == []
    assert contents(depth(sync, 60_001, 60_020)) == [("image 60000", "depth 60001")]


def test_odometry_is_waited_for_until_it_lies_on_both_sides() -> None:
    sync = LiveSynchroniser(100 * MS)
    sync.expect("odometry", 250 * MS, until_after=True)
    sync.companion("odometry", 990 * MS, "before", 991 * MS)
    assert image(sync, 1000, 1001) == []
    assert len(sync.companion("odometry", 1010 * MS, "after", 1011 * MS)) == 1


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # beside other work
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 500)), max_size=120))
def test_whatever_comes_every_image_leaves_once_in_order_and_few_wait(events: list[tuple[bool, int]]) -> None:
    sync = LiveSynchroniser(50 * MS)
    sync.expect("depth", 10 * MS)
    now, left, sent = 0, [], []
    for is_image, step in events:
        now += step
        if is_image:
            sent.append(f"image {now}")
            left += image(sync, now, now)
        else:
            left += depth(sync, now - 5, now)
        assert sync.waiting <= MAX_WAITING
    left += sync.release((now + 51) * MS)
    assert [b.message for b in left] == sent
    for b in left:
        found = b.companions.get("depth")
        assert found is None or abs(int(found.split()[1]) * MS - b.stamp_ns) <= 10 * MS


def test_images_that_never_arrived_show_as_gaps_in_the_numbers() -> None:
    gaps = SequenceGaps()
    assert [gaps.missed(n) for n in (5, 6, 9, 10)] == [0, 0, 2, 0]
    assert [gaps.missed(n) for n in (1, 3)] == [0, 1]  # another publisher, or the same started again
    assert [gaps.missed(n) for n in (None, 0, 2**64 - 1)] == [0, 0, 0]  # a middleware that does not tell


def test_counts_add_up_and_keep_first_and_last_case() -> None:
    counters = Counters()
    for now in range(10):
        assert counters.receive(now * 100 * MS) == now
    assert counters.drop(Drop.MALFORMED, "short")
    assert counters.drop(Drop.MALFORMED, "image with encoding 'yuv9'")  # another kind of fault is worth a line too
    assert counters.drop(Drop.MALFORMED, "image with encoding 'yuv8'")
    assert not counters.drop(Drop.MALFORMED, "short")
    assert counters.drop(Drop.MALFORMED, "3 bytes of 10")
    assert not counters.drop(Drop.MALFORMED, "4 bytes of 12")
    counters.drop(Drop.LOST, "3 before image 4", 3)
    counters.drop(Drop.FAILED, "no memory")
    assert counters.snapshot().failures_in_a_row == 1
    counters.process(0)
    found = counters.snapshot(900 * MS)
    assert (found.received, found.processed, found.dropped, found.refused) == (10, 1, 10, 6)
    assert (found.first[Drop.MALFORMED], found.last[Drop.MALFORMED]) == ("short", "4 bytes of 12")
    assert found.input_hz == pytest.approx(10.0)
    assert found.failures_in_a_row == 0


def test_rates_are_those_of_the_last_seconds() -> None:
    counters = Counters()
    for now in range(300):
        counters.receive(now * 33 * MS)
    end = 299 * 33 * MS
    assert counters.snapshot(end).input_hz == pytest.approx(30.3, abs=0.1)
    assert counters.snapshot(end + 2_500 * MS).input_hz < 20.0
    assert counters.snapshot(end + 6_000 * MS).input_hz == 0.0  # the publisher is gone
