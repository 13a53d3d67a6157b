"""What every source of frames has, and the one loop that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.plausibility import calibration_doubts
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.account import Account
from ros2_densematch.io.sources.assemble import FrameAssembler
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.thinning import Thinning
from ros2_densematch.io.sources.timeline import Judged, StampLabel, TimeLine, said_of
from ros2_densematch.messages.image import ImageDecodeError
from ros2_densematch.tracking.frame import Frame


class FrameSource(Protocol):
    """An iterable of frames; each iteration reads the source again from its start, one frame at a time.

    Attributes:
        name: short name for reports.
        frame_id: optical frame of the images ("camera" where the source names none).
        length: number of frames, or None where that is not known before reading.
        expected: about so many frames a reading gives, for a progress bar; None where nothing is known.
        warnings: what is wrong, one sentence each; grows while frames are read.
        notes: what was chosen on the user's behalf (topics, time stamps), one sentence each.
        dropped: frames left out so far (not decodable, time going back).
        ground_truth: true camera poses, or None.
        inputs: what became of every named or found input so far, for summary.json.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame_id(self) -> str: ...
    @property
    def length(self) -> int | None: ...
    @property
    def expected(self) -> int | None: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def dropped(self) -> int: ...
    @property
    def ground_truth(self) -> Trajectory | None: ...
    @property
    def inputs(self) -> list[dict[str, Any]]: ...
    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class Companions:
    """What goes with an image: depth (H, W) in metres, the right image of a stereo pair, T_world_from_camera (4, 4) of
    the odometry, and the image's own calibrations where they may differ from those of the source."""

    depth: NDArray[np.float32] | None = None
    right_image: NDArray[np.uint8] | None = None
    odometry: NDArray[np.float64] | None = None
    camera: Camera | None = None
    right_camera: Camera | None = None


def _nothing(stamp_ns: int) -> Companions:
    return Companions()


@dataclass(frozen=True)
class Picture:
    """An image of a source, not decoded yet.

    Attributes:
        stamp_ns: its time in nanoseconds, as it says itself.
        origin: the topic or file that it comes from.
        decode: gives uint8 RGB (H, W, 3) or grey (H, W), or raises `ImageDecodeError`.
        companions: called with its time, as it was judged, once the image could be decoded.
        recorded_ns: when it was recorded; 0 where the source has no such clock.
        stamped: whether it says its time itself; otherwise `stamp_ns` is that of the recording.
    """

    stamp_ns: int
    origin: str
    decode: Callable[[], NDArray[np.uint8]]
    companions: Callable[[int], Companions] = _nothing
    recorded_ns: int = 0
    stamped: bool = True


_LEFT_OUT = {
    StampLabel.OUTLIER: "frames have a stamp far from those of their neighbours and are skipped",
    StampLabel.REPEATED: "frames repeat the stamp of the previous frame and are skipped",
    StampLabel.LATE: "frames come after later ones and are skipped",
}
# Frames out of order lie at most this far behind the end of the wanted part.
_END_MARGIN_NS = 1_000_000_000


class Source(ABC):
    """The common part of all sources; see `FrameSource`.

    A subclass opens its files, then calls `_calibrate`, and yields pictures in `_pictures`.

    Args:
        name: short name for reports.
        options: what the user says about the source.
    """

    def __init__(self, name: str, options: SourceOptions):
        self.name = name
        self.frame_id = "camera"
        self.ground_truth: Trajectory | None = None
        self._options = options
        self._log = SourceLog()
        self._count: int | None = None
        self._period_s: float | None = None  # between two frames, as far as it is known
        self._thinning = Thinning(options.every, options.at_most_hz)
        self._images = Account("images", name)
        self._accounts: list[Account] = []
        self._origin_ns: int | None = None

    def _calibrate(self, camera: Camera | None, right_camera: Camera | None = None, *, origin: object = "") -> None:
        """The cameras of all frames, where they are known.

        Args:
            camera, right_camera: of the images, and of the right ones.
            origin: the file that `camera` comes from, to name it where the calibration is implausible.
        """
        for doubt in calibration_doubts(camera) if camera is not None and origin else ():
            self._log.warn(f"the calibration in {origin} is doubtful: {doubt}")
        if camera is not None and camera.frame_id:
            self.frame_id = camera.frame_id
        self._assembler = FrameAssembler(self._options, self._log, camera, right_camera)

    @abstractmethod
    def _pictures(self) -> Iterator[Picture]:
        """The images of the source in its order, at least those of the wanted part."""

    @property
    def length(self) -> int | None:
        cut = self._options.start_s is not None or self._options.stop_s is not None
        return None if cut or not self._thinning.keeps_all else self._count

    @property
    def expected(self) -> int | None:
        options, period_s = self._options, self._period_s
        if self._count is None:
            return None
        if period_s is None:  # no time is known: neither the part nor a rate can be told
            return None if self.length is None else self._count
        begin = (options.start_s or 0.0) / period_s
        end = self._count if options.stop_s is None else min(self._count, options.stop_s / period_s)
        return self._thinning.expected(max(round(end - begin), 0), period_s)

    @property
    def warnings(self) -> list[str]:
        problems = [account.problem(self._images) for account in self._accounts]
        return self._log.warnings + [problem for problem in problems if problem]

    @property
    def notes(self) -> list[str]:
        return self._log.notes

    @property
    def dropped(self) -> int:
        return self._log.frames_dropped

    @property
    def inputs(self) -> list[dict[str, Any]]:
        return [account.facts() for account in (self._images, *self._accounts)]

    def __iter__(self) -> Iterator[Frame]:
        self._assembler.restart()
        if self._origin_ns is not None:
            self._assembler.begin_at(self._origin_ns)
        for account in (self._images, *self._accounts):
            account.restart()
        self._in_part = self._options.start_s is None
        self._thinning.restart()
        try:
            yield from self._frames()
        finally:
            self._settle()
            for account in (self._images, *self._accounts):
                if account.note():
                    self._log.note(account.note())

    def _settle(self) -> None:  # noqa: B027 - most sources have nothing to do
        """The reading has ended, or was ended: completes the accounts."""

    def _frames(self) -> Iterator[Frame]:
        segment = 0
        last_ns = None
        for judged in self._judged():
            picture = judged.item
            if judged.label is StampLabel.USED:
                last_ns = judged.stamp_ns
            if judged.label is StampLabel.USED and self._assembler.past_end(judged.stamp_ns, _END_MARGIN_NS):
                return
            if not self._wanted(judged):
                continue
            index = self._assembler.number()
            self._images.seen(picture.stamp_ns, stamped=picture.stamped)
            if judged.label is not StampLabel.USED:
                kind = _LEFT_OUT[judged.label]
                self._images.unused[kind] += 1
                self._log.drop_frame(kind, f"frame {index} at {judged.why}")
                continue
            if judged.segment != segment:
                segment = judged.segment
                self._assembler.follow_clock()
                self._thinning.restart()
            if not self._thinning.keep(judged.stamp_ns):
                self._images.unused["skipped by --every or --rate"] += 1
                continue
            try:
                image = picture.decode()
            except ImageDecodeError as error:
                kind = "frames could not be decoded and are skipped"
                self._images.unused[kind] += 1
                self._log.drop_frame(kind, f"frame {index}, {error}")
                continue
            extra = self._checked_pair(image, picture.companions(judged.stamp_ns))
            frame = self._assembler.frame(
                image,
                judged.stamp_ns,
                index,
                picture.origin,
                depth=extra.depth,
                right_image=extra.right_image,
                odometry=extra.odometry,
                camera=extra.camera,
                right_camera=extra.right_camera,
            )
            if frame is not None:
                self._images.used += 1
                yield frame
        if last_ns is not None and not self._images.messages and self._options.start_s is not None:
            self._log.warn(
                f"--from {self._options.start_s:g} is after the last image, which comes "
                f"{self._assembler.since_first_s(last_ns):.3f} s after the first"
            )

    def _checked_pair(self, image: NDArray[np.uint8], extra: Companions) -> Companions:
        """What goes with an image, after a look at the two images where it is a stereo pair."""
        return extra

    def _judged(self) -> Iterator[Judged[Picture]]:
        """The pictures with the judgement on their time; what is decided about the clock is said."""
        line: TimeLine[Picture] = TimeLine()
        said = 0
        for picture in self._pictures():
            yield from line.push(picture.stamp_ns, picture.recorded_ns, picture)
            for decision in line.decisions[said:]:
                self._log.warn(f"{self._images.name}: {decision}")
            said = len(line.decisions)
        yield from line.finish()
        for decision in line.decisions[said:]:
            self._log.warn(f"{self._images.name}: {decision}")
        if line.gaps:
            self._log.note(f"{self._images.name}: {said_of(line.gaps)}")

    def _wanted(self, judged: Judged[Picture]) -> bool:
        """Whether it lies in the wanted part; one that is left out, whether that part has begun and not ended."""
        if judged.label is StampLabel.USED:
            self._in_part = self._assembler.wanted(judged.stamp_ns)
        return self._in_part
