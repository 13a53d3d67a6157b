"""What is believed about the time of messages: order, clocks that step, single outliers, stamps that stand still.

One judge for every topic of a recording and for the live node. It is pure (no clock, no input or output) and causal: a
message is judged by those before it and at most `look_ahead` after it. The time of recording (or arrival) is a witness
only: it tells a pause from a step of the clock, and replaces stamps that stand still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from statistics import median
from typing import Generic, TypeVar

Item = TypeVar("Item")

LOOK_AHEAD = 8  # messages of a recording that may wait for their judgement
# So many stamps in a row may lie elsewhere and count as outliers; as many that rise make a clock that was set.
MAX_OUTLIERS = 2
IN_A_ROW = 3
# A jump that the recording's clock does not confirm is a step of the clock from here on.
_STEP_NS = 10_000_000_000
_STEP_PERIODS = 50
# A smaller one is only said: nothing is left out because of it. Delays make stamps older against the recording's clock,
# never newer.
_FORWARD_NS = 500_000_000
_FORWARD_PERIODS = 10
_RATE_ERROR = 0.5  # of the rate of the recording's clock, over a pause
# A pause that is worth a word.
_GAP_NS = 1_000_000_000
_GAP_PERIODS = 20
_GAP_KNOWN = 8  # steps between messages, before a usual one is known
_HISTORY = 32


class StampLabel(Enum):
    """What becomes of a message; all but USED are left out."""

    USED = "used"
    OUTLIER = "outlier"  # far from its neighbours, which agree with each other
    REPEATED = "repeated"  # the stamp of the message before it
    LATE = "late"  # behind messages that were passed on already


@dataclass(frozen=True)
class Judged(Generic[Item]):
    """A message and its judgement.

    Attributes:
        item: what was given.
        label: whether it is used.
        stamp_ns: its time; where the stamp stood still, continued by the clock of the recording.
        segment: how often the clock had been set back before.
        why: for those left out, the numbers.
    """

    item: Item
    label: StampLabel
    stamp_ns: int
    segment: int
    why: str = ""


@dataclass(frozen=True)
class Gap:
    """A pause between two used messages that is much longer than usual.

    Attributes:
        from_ns, to_ns: times of the messages before and after it.
        usual_ns: the usual time between two messages.
    """

    from_ns: int
    to_ns: int
    usual_ns: int

    def __str__(self) -> str:
        length = (self.to_ns - self.from_ns) * 1e-9
        return f"{length:.3f} s from {_seconds(self.from_ns)} to {_seconds(self.to_ns)}"


@dataclass(frozen=True)
class _Entry(Generic[Item]):
    stamp_ns: int
    recorded_ns: int
    item: Item


class TimeLine(Generic[Item]):
    """Judges the messages of one topic, in the order of recording or arrival.

    Args:
        look_ahead: messages that may wait; 0 = each is judged at once (live): then the first messages after a step of
            the clock are left out, because they may be outliers.

    Attributes:
        decisions: steps of the clock and stamps that stood still, one sentence each, in their order.
        gaps: long pauses between two messages, in their order.
    """

    def __init__(self, look_ahead: int = LOOK_AHEAD) -> None:
        self.decisions: list[str] = []
        self.gaps: list[Gap] = []
        self._look_ahead = look_ahead
        self._pending: deque[_Entry[Item]] = deque()
        self._last: _Entry[Item] | None = None  # as used
        self._last_header_ns = 0  # as sent
        self._segment = 0
        self._refused: list[_Entry[Item]] = []
        self._steps: deque[tuple[int, int]] = deque(
            maxlen=_HISTORY
        )  # from one used message to the next: header, recording
        self._newest: deque[_Entry[Item]] = deque(maxlen=LOOK_AHEAD)  # as used
        self._clocks: deque[tuple[int, int]] = deque(maxlen=_HISTORY)  # of used messages since a step: stamp, recording

    @property
    def last_ns(self) -> int | None:
        """The last time that was used."""
        return None if self._last is None else self._last.stamp_ns

    def push(self, stamp_ns: int, recorded_ns: int, item: Item) -> list[Judged[Item]]:
        """Takes a message; returns those that are judged now."""
        self._pending.append(_Entry(stamp_ns, recorded_ns, item))
        if self._look_ahead == 0:
            return [self._judge_at_once()]
        return [self._judge()] if len(self._pending) > self._look_ahead else []

    def finish(self) -> list[Judged[Item]]:
        """There are no more messages: judges those that wait."""
        judged = []
        while self._pending:
            judged.append(self._judge())
        return judged

    # --- with what comes after it -------------------------------------------------------------------------------------

    def _judge(self) -> Judged[Item]:
        """One of the messages that wait: the first one, unless one behind it belongs before it."""
        head, behind = self._pending[0], list(self._pending)[1:]
        if self._last is None:
            return self._judge_first(head, behind)
        if head.stamp_ns == self._last_header_ns:
            return self._stands_still(head, behind)
        floor = self._last.stamp_ns
        if head.stamp_ns <= floor:
            return self._behind(head, behind, floor)
        lower = next((i for i, entry in enumerate(behind) if entry.stamp_ns < head.stamp_ns), None)
        if lower is not None and behind[lower].stamp_ns > floor:
            return self._excursion(head, behind, lower, floor)
        return self._use(head)

    def _judge_first(self, head: _Entry[Item], behind: list[_Entry[Item]]) -> Judged[Item]:
        """There is nothing before it: it is an outlier where those behind it agree on another time."""
        rest = [entry.stamp_ns for entry in behind[:IN_A_ROW]]
        reach = max(1.5 * self._look_ahead * self._period(behind), 1e9)
        agree = len(rest) >= IN_A_ROW - 1 and all(0 < b - a <= reach for a, b in pairwise(rest))
        if agree:
            gap = behind[0].stamp_ns - head.stamp_ns
            far = abs(gap) > reach
            if (gap < 0 and far) or (gap > 0 and self._is_step(gap, behind[0].recorded_ns - head.recorded_ns, behind)):
                return self._leave_out(StampLabel.OUTLIER, _far(head, behind[0]))
            if gap < 0:  # the first ones are out of order
                return self._use(min([head, *behind[:IN_A_ROW]], key=lambda entry: entry.stamp_ns))
        return self._use(head)

    def _excursion(self, head: _Entry[Item], behind: list[_Entry[Item]], lower: int, floor: int) -> Judged[Item]:
        """A later message lies between the last one used and this one: wrong order, or this one is an outlier."""
        too_far_to_tell = len(behind) == self._look_ahead and lower > self._look_ahead - IN_A_ROW
        if too_far_to_tell or self._steps_back([head, *behind[:lower]], behind[lower:]):
            return self._use(head)
        other = behind[lower]
        period = self._period(behind)
        # An outlier leaves its own place in time empty; a message out of order does not.
        place_is_empty = other.stamp_ns - floor > 1.5 * period
        if head.stamp_ns - other.stamp_ns <= 1.5 * self._look_ahead * period and not place_is_empty:
            between = [entry for entry in behind if floor < entry.stamp_ns < head.stamp_ns]
            return self._use(min(between, key=lambda entry: entry.stamp_ns))
        if lower < MAX_OUTLIERS:
            return self._leave_out(StampLabel.OUTLIER, _far(head, other))
        return self._use(head)

    def _behind(self, head: _Entry[Item], behind: list[_Entry[Item]], floor: int) -> Judged[Item]:
        """The stamp lies before the last one used: it comes late, it is an outlier, or the clock was set back."""
        rising = 1
        for before, after in zip([head, *behind], behind, strict=False):
            if not before.stamp_ns < after.stamp_ns <= floor:
                break
            rising += 1
        if rising >= IN_A_ROW or (rising > 1 and rising == 1 + len(behind)) or self._steps_back([], [head, *behind]):
            return self._set_back(head)
        assert self._last is not None
        late = floor - head.stamp_ns <= 1.5 * self._look_ahead * self._period(behind)
        return self._leave_out(StampLabel.LATE if late else StampLabel.OUTLIER, _far(head, self._last))

    def _steps_back(self, ahead: list[_Entry[Item]], after: list[_Entry[Item]]) -> bool:
        """Whether the clock was set back by less than the look-ahead between two messages: all stamps from there on lie
        lower against the recording's clock than all before, which is not so for one message out of order."""
        if len(after) < IN_A_ROW or any(a.stamp_ns >= b.stamp_ns for a, b in pairwise(after)):
            return False
        rate, origin = self._rate(), after[0].recorded_ns

        def offset(entry: _Entry[Item]) -> float:
            return entry.stamp_ns - rate * (entry.recorded_ns - origin)

        lowest = min(offset(entry) for entry in (*self._newest, *ahead))
        return lowest - max(offset(entry) for entry in after) > 0.5 * self._period(after)

    def _stands_still(self, head: _Entry[Item], behind: list[_Entry[Item]]) -> Judged[Item]:
        """The stamp of the message before: sent twice, or the clock stands still while the recording goes on."""
        assert self._last is not None
        run = 1
        while run <= len(behind) and behind[run - 1].stamp_ns == head.stamp_ns:
            run += 1
        passed = head.recorded_ns - self._last.recorded_ns
        already = self._last.stamp_ns != self._last_header_ns
        if passed <= 0 or (run < IN_A_ROW - 1 and not already):
            return self._leave_out(StampLabel.REPEATED, f"{_seconds(head.stamp_ns)} again")
        if not already:
            self.decisions.append(
                f"the stamps stop at {_seconds(head.stamp_ns)} while the recording goes on: until they advance, the "
                f"recording times are used"
            )
        step = passed * self._rate()
        goes_on = next((entry for entry in behind if entry.stamp_ns > head.stamp_ns), None)
        if goes_on is not None:  # leave room for those that still stand
            step = min(step, (goes_on.stamp_ns - self._last.stamp_ns) / (run + 1))
        return self._use(head, max(self._last.stamp_ns + round(step), self._last.stamp_ns + 1))

    # --- at once ------------------------------------------------------------------------------------------------------

    def _judge_at_once(self) -> Judged[Item]:
        """The message by those before it only: what is strange is refused until it goes on in the same way."""
        head = self._pending[0]
        if self._last is None:
            return self._use(head)
        gap = head.stamp_ns - self._last.stamp_ns
        forward = gap > 0 and self._is_step(gap, head.recorded_ns - self._last.recorded_ns, [])
        if gap > 0 and not forward:
            return self._use(head)
        if self._refused and not self._continues(self._refused[-1], head):
            self._refused.clear()
        self._refused.append(head)
        if len(self._refused) >= IN_A_ROW:
            return self._use(head) if forward else self._set_back(head)
        why = _far(head, self._last)
        if gap == 0:
            return self._leave_out(StampLabel.REPEATED, f"{_seconds(head.stamp_ns)} again")
        return self._leave_out(StampLabel.OUTLIER if forward else StampLabel.LATE, why)

    def _continues(self, before: _Entry[Item], after: _Entry[Item]) -> bool:
        gap = after.stamp_ns - before.stamp_ns
        return gap > 0 and not self._is_step(gap, after.recorded_ns - before.recorded_ns, [])

    # --- the judgements -----------------------------------------------------------------------------------------------

    def _use(self, entry: _Entry[Item], stamp_ns: int | None = None) -> Judged[Item]:
        """Passes a message on; `stamp_ns` where its own stamp stood still."""
        self._pending.remove(entry)
        self._refused.clear()
        time_ns = entry.stamp_ns if stamp_ns is None else stamp_ns
        if self._last is not None:
            header, recorded = time_ns - self._last.stamp_ns, entry.recorded_ns - self._last.recorded_ns
            if header > 0:
                if self._is_step(header, recorded, []) or self._goes_forward(time_ns, entry.recorded_ns):
                    self.decisions.append(
                        f"the clock goes forward by {header * 1e-9:.3f} s from {_seconds(self._last.stamp_ns)} to "
                        f"{_seconds(time_ns)}, while {recorded * 1e-9:.3f} s pass"
                    )
                    self._clocks.clear()
                else:
                    self._look_for_gap(self._last.stamp_ns, time_ns)
                    self._steps.append((header, recorded))
        self._last = _Entry(time_ns, entry.recorded_ns, entry.item)
        self._newest.append(self._last)
        self._clocks.append((time_ns, entry.recorded_ns))
        self._last_header_ns = entry.stamp_ns
        return Judged(entry.item, StampLabel.USED, time_ns, self._segment)

    def _set_back(self, entry: _Entry[Item]) -> Judged[Item]:
        assert self._last is not None
        back = (self._last.stamp_ns - entry.stamp_ns) * 1e-9
        self.decisions.append(
            f"the clock was set back by {back:.3f} s, from {_seconds(self._last.stamp_ns)} to "
            f"{_seconds(entry.stamp_ns)}: a new segment starts"
        )
        self._segment += 1
        self._newest.clear()
        self._clocks.clear()
        return self._use(entry)

    def _leave_out(self, label: StampLabel, why: str) -> Judged[Item]:
        entry = self._pending.popleft()
        return Judged(entry.item, label, entry.stamp_ns, self._segment, why)

    # --- what is usual ------------------------------------------------------------------------------------------------

    def _period(self, behind: list[_Entry[Item]]) -> float:
        """The usual time between two messages in nanoseconds, from those before and those that wait."""
        known = [header for header, _ in self._steps]
        stamps = sorted(entry.stamp_ns for entry in behind)
        known += [b - a for a, b in pairwise(stamps) if b > a]
        return median(known) if known else 1e8

    def _rate(self) -> float:
        """Header seconds per second of the recording (1 where not known)."""
        rates = [header / recorded for header, recorded in self._steps if recorded > 0]
        return median(rates) if rates else 1.0

    def _is_step(self, gap: int, recorded_gap: int, behind: list[_Entry[Item]]) -> bool:
        """Whether stamps jump forward much farther than the recording's clock says; without a clock, never."""
        if gap <= max(_STEP_NS, _STEP_PERIODS * self._period(behind)):
            return False
        recorded = [entry.recorded_ns for entry in behind]
        moves = any(r > 0 for _, r in self._steps) or len(set(recorded)) > 1 or recorded_gap > 0
        return moves and gap > 10 * self._rate() * max(recorded_gap, 0)

    def _goes_forward(self, stamp_ns: int, recorded_ns: int) -> bool:
        """Whether a stamp is newer against the recording's clock than all of the messages before it were."""
        known = len(self._steps) >= _GAP_KNOWN and len(self._clocks) > 1
        if not known or not any(recorded > 0 for _, recorded in self._steps):
            return False
        rate = self._rate()
        ahead = min(stamp_ns - before - rate * (recorded_ns - log) for before, log in self._clocks)
        passed = rate * max(recorded_ns - self._clocks[-1][1], 0)
        return ahead - _RATE_ERROR * passed > max(_FORWARD_NS, _FORWARD_PERIODS * self._period([]))

    def _look_for_gap(self, before_ns: int, after_ns: int) -> None:
        usual = self._period([])
        if len(self._steps) >= _GAP_KNOWN and after_ns - before_ns > max(_GAP_NS, _GAP_PERIODS * usual):
            self.gaps.append(Gap(before_ns, after_ns, round(usual)))


def said_of(gaps: Sequence[Gap]) -> str:
    """The longest of some pauses, and how many there are, in one sentence."""
    longest = max(gaps, key=lambda gap: gap.to_ns - gap.from_ns)
    also = f"; {len(gaps)} such pauses in all" if len(gaps) > 1 else ""
    return f"nothing comes for {longest}, where messages are usually {longest.usual_ns * 1e-9:.3f} s apart{also}"


def _far(entry: _Entry[Item], neighbour: _Entry[Item]) -> str:
    offset = (entry.stamp_ns - neighbour.stamp_ns) * 1e-9
    side = "after" if offset > 0 else "before"
    return f"{_seconds(entry.stamp_ns)}, {abs(offset):.3f} s {side} its neighbour at {_seconds(neighbour.stamp_ns)}"


def _seconds(time_ns: int) -> str:
    return f"{time_ns / 1e9:.6f} s"
