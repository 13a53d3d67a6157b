"""What is believed about time: order, steps of the clock, outliers, stamps that stand still."""

from __future__ import annotations

import random

import pytest

from ros2_densematch.io.sources.timeline import Gap, Judged, StampLabel, TimeLine, said_of

SECOND = 10**9
HOUR = 3600 * SECOND
START = 1_700_000_000 * SECOND


def judged(stamps_ns: list[int], recorded_ns: list[int] | None = None, *, look_ahead: int = 8) -> list[Judged[int]]:
    line: TimeLine[int] = TimeLine(look_ahead)
    recorded = recorded_ns or [START + i * SECOND // 10 for i in range(len(stamps_ns))]
    found = []
    for i, (stamp, log) in enumerate(zip(stamps_ns, recorded, strict=True)):
        found += line.push(stamp, log, i)
    found += line.finish()
    assert len(found) == len(stamps_ns), "nothing vanishes"
    return found


def used(found: list[Judged[int]]) -> list[int]:
    return [j.item for j in found if j.label is StampLabel.USED]


def regular(count: int, start_ns: int = START, period_ns: int = SECOND // 10) -> list[int]:
    return [start_ns + i * period_ns for i in range(count)]


@pytest.mark.parametrize("period_ms", [1, 33, 100, 1000, 60_000])
@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_an_orderly_topic_passes_as_it_is(period_ms: int, count: int) -> None:
    stamps = regular(count, period_ns=period_ms * 10**6)
    line: TimeLine[int] = TimeLine()
    found = [j for i, s in enumerate(stamps) for j in line.push(s, s + 30_000_000, i)] + line.finish()
    assert [j.stamp_ns for j in found] == stamps
    assert all(j.label is StampLabel.USED and j.segment == 0 for j in found)
    assert not line.decisions


def test_jitter_and_missing_frames_are_no_reason_to_drop_anything() -> None:
    rng = random.Random(0)
    for _ in range(200):
        t, stamps = START, []
        for _ in range(40):
            t += round(SECOND / 30 * rng.choice([1, 1, 1, 1, 2, 5]) * rng.uniform(0.7, 1.3))
            stamps.append(t)
        logs = [s + rng.randrange(100_000_000) for s in stamps]
        assert used(judged(stamps, logs)) == list(range(40))


@pytest.mark.parametrize("at", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("offset_s", [3600, -3600, 20, -20, 1e9])
def test_one_stamp_far_away_is_left_out_and_named(at: int, offset_s: float) -> None:
    stamps = regular(7)
    stamps[at] += round(offset_s * SECOND)
    found = judged(stamps)
    assert used(found) == [i for i in range(7) if i != at] or (at == 6 and offset_s > 0)
    if not (at == 6 and offset_s > 0):  # the last one has nothing behind it: a step forward, and said as such
        bad = next(j for j in found if j.label is not StampLabel.USED)
        assert bad.label is StampLabel.OUTLIER
        assert "its neighbour" in bad.why


def test_two_outliers_in_a_row_are_two_outliers() -> None:
    stamps = regular(9)
    stamps[3] += HOUR
    stamps[4] += HOUR
    assert used(judged(stamps)) == [0, 1, 2, 5, 6, 7, 8]


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_clock_set_back_loses_nothing_and_begins_a_segment(at: int) -> None:
    stamps = regular(7)
    stamps[at:] = [s - HOUR for s in stamps[at:]]
    line: TimeLine[int] = TimeLine()
    found = [j for i, s in enumerate(stamps) for j in line.push(s, START + i * SECOND // 10, i)] + line.finish()
    assert used(found) == list(range(7))
    assert [j.segment for j in found] == [0] * at + [1] * (7 - at)
    assert len(line.decisions) == 1
    assert "set back by 3599.9" in line.decisions[0]


@pytest.mark.parametrize("back_ms", [160, 250, 430, 770])
@pytest.mark.parametrize("rate", [0.2, 1.0, 10.0])
def test_a_clock_set_back_by_less_than_the_look_ahead_is_no_disorder(back_ms: int, rate: float) -> None:
    stamps = regular(30)
    delays = [i * 7919 % 13 * 10**6 for i in range(30)]
    recorded = [START + round((i * SECOND / 10 + delay) / rate) for i, delay in enumerate(delays)]
    stamps[12:] = [s - back_ms * 10**6 for s in stamps[12:]]
    found = judged(stamps, recorded)
    assert [j.item for j in found] == list(range(30)), "in the order of recording"
    assert [j.segment for j in found] == [0] * 12 + [1] * 18


def test_a_bag_that_was_played_in_a_loop_has_a_segment_for_each_round() -> None:
    found = judged(regular(5) * 3)
    assert used(found) == list(range(15))
    assert [j.segment for j in found] == [0] * 5 + [1] * 5 + [2] * 5


def test_a_clock_set_forward_loses_nothing_and_is_said() -> None:
    stamps = regular(12)
    stamps[6:] = [s + HOUR for s in stamps[6:]]
    line: TimeLine[int] = TimeLine()
    found = [j for i, s in enumerate(stamps) for j in line.push(s, START + i * SECOND // 10, i)] + line.finish()
    assert used(found) == list(range(12))
    assert len(line.decisions) == 1
    assert "forward by 3600.1" in line.decisions[0]


@pytest.mark.parametrize("look_ahead", [0, 8])
@pytest.mark.parametrize("step_s", [2.0, 5.0, 9.5])
@pytest.mark.parametrize("rate", [0.2, 1.0, 10.0])
def test_a_small_step_forward_loses_nothing_and_is_said(look_ahead: int, step_s: float, rate: float) -> None:
    rng = random.Random(1)
    stamps = regular(40)
    logs = [START + round((i * SECOND // 10 + rng.randrange(60_000_000)) / rate) for i in range(40)]
    stamps[25:] = [s + round(step_s * SECOND) for s in stamps[25:]]
    line: TimeLine[int] = TimeLine(look_ahead)
    found = [j for i, s in enumerate(stamps) for j in line.push(s, logs[i], i)] + line.finish()
    assert used(found) == list(range(40))
    assert len(line.decisions) == 1
    assert f"forward by {step_s + 0.1:.3f} s" in line.decisions[0]
    assert not line.gaps


def test_a_recorder_that_stalls_and_loses_messages_is_no_clock_that_was_set() -> None:
    """A second's messages are written at once when it goes on, and two more seconds' are lost."""
    stamps = [s for i, s in enumerate(regular(80)) if not 35 <= i < 55]
    logs = [max(s, START + 55 * SECOND // 10) if 25 <= i < 35 else s for i, s in enumerate(stamps)]
    line: TimeLine[int] = TimeLine()
    found = [j for i, s in enumerate(stamps) for j in line.push(s, logs[i], i)] + line.finish()
    assert used(found) == list(range(60))
    assert not line.decisions
    assert [str(gap) for gap in line.gaps] == ["2.100 s from 1700000003.400000 s to 1700000005.500000 s"]


def test_long_pauses_are_counted_and_short_ones_and_first_ones_are_not() -> None:
    def gaps(steps_s: list[float]) -> list[float]:
        line: TimeLine[int] = TimeLine()
        t = START
        for i, step in enumerate(steps_s):
            t += round(step * SECOND)
            line.push(t, t, i)
        line.finish()
        assert not line.decisions
        return [(gap.to_ns - gap.from_ns) / SECOND for gap in line.gaps]

    usual = [0.03] * 12
    assert gaps([*usual, 4.0, *usual, 0.9, *usual, 3600.0, *usual]) == [4.0, 3600.0]
    assert gaps([0.03, 4.0, *usual]) == []  # what is usual is not known yet
    assert gaps([2.0, 8.0, 1.0, 30.0, 3.0] * 8) == []  # a camera that is triggered now and then


def test_pauses_are_said_in_one_sentence() -> None:
    gaps = [Gap(0, 2 * SECOND, SECOND // 10), Gap(10 * SECOND, 15 * SECOND, SECOND // 10)]
    assert said_of(gaps[:1]).endswith("where messages are usually 0.100 s apart")
    assert "5.000 s from 10.000000 s" in said_of(gaps)
    assert said_of(gaps).endswith("2 such pauses in all")


def test_a_pause_of_the_recording_is_no_step() -> None:
    stamps = [*regular(6), *regular(6, START + HOUR)]
    line: TimeLine[int] = TimeLine()
    found = [j for i, s in enumerate(stamps) for j in line.push(s, s, i)] + line.finish()
    assert used(found) == list(range(12))
    assert not line.decisions


@pytest.mark.parametrize("order", [[0, 2, 1, 3, 4, 5], [1, 0, 2, 3, 4, 5], [0, 3, 1, 2, 4, 5], [0, 1, 2, 3, 5, 4]])
def test_messages_out_of_order_are_put_in_order(order: list[int]) -> None:
    stamps = [regular(6)[i] for i in order]
    found = judged(stamps)
    assert [j.stamp_ns for j in found if j.label is StampLabel.USED] == regular(6)


def test_a_stamp_sent_twice_is_used_once() -> None:
    stamps = regular(6)
    stamps[3] = stamps[2]
    found = judged(stamps)
    assert used(found) == [0, 1, 2, 4, 5]
    assert found[3].label is StampLabel.REPEATED


@pytest.mark.parametrize(("first", "last"), [(0, 10), (3, 7), (5, 10)])
def test_stamps_that_stand_still_are_continued_by_the_clock_of_the_recording(first: int, last: int) -> None:
    stamps = regular(10)
    for i in range(first, last):
        stamps[i] = stamps[first]
    line: TimeLine[int] = TimeLine()
    found = [j for i, s in enumerate(stamps) for j in line.push(s, START + i * SECOND // 5, i)] + line.finish()
    assert used(found) == list(range(10))
    times = [j.stamp_ns for j in found]
    assert times == sorted(set(times))
    if first > 1:  # the recording ran at half the speed, as the messages before tell
        assert times == pytest.approx(regular(10), abs=1e3)
    assert len(line.decisions) == 1
    assert "the stamps stop at" in line.decisions[0]


def test_the_window_bounds_memory_and_delay() -> None:
    line: TimeLine[int] = TimeLine()
    out = 0
    for i, stamp in enumerate(regular(1000)):
        out += len(line.push(stamp, stamp, i))
        assert i + 1 - out <= 8


# --- live: judged at once ---------------------------------------------------------------------------------------------


def test_live_an_outlier_is_refused_and_the_others_go_on() -> None:
    stamps = regular(8)
    stamps[3] += HOUR
    assert used(judged(stamps, look_ahead=0)) == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_live_a_clock_that_was_set_is_followed_after_three_images(offset: int) -> None:
    stamps = regular(10)
    stamps[4:] = [s + offset for s in stamps[4:]]
    found = judged(stamps, look_ahead=0)
    assert used(found) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert found[-1].segment == (1 if offset < 0 else 0)


def test_live_nothing_waits() -> None:
    line: TimeLine[int] = TimeLine(0)
    for i, stamp in enumerate(regular(20)):
        assert [j.item for j in line.push(stamp, stamp, i)] == [i]
