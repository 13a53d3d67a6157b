"""Hundreds of small recordings from one description: counts, times, calibrations and poses are right in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recording_corpus as corpus

from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions

# Encodings whose grey values come out as they are; the others are stretched or go through another colour space.
EXACT = {"mono8", "rgb8", "bgr8", "bgra8", "bayer_rggb8", "png"}


def check(path: Path, description: corpus.Description) -> None:
    clock = corpus.clocks()[description.clock]
    source = open_source(path, SourceOptions(odometry_topic="/odom", odometry_time_offset_s=0.0))
    frames = list(source)
    assert [f.stamp_ns for f in frames] == pytest.approx(clock.times_ns, abs=2e6), "times"
    assert source.dropped == corpus.FRAMES - len(clock.kept)
    for frame, index in zip(frames, clock.kept, strict=True):
        if description.encoding in EXACT:
            assert np.median(frame.image) == corpus.grey_of(index)
        assert frame.image.shape[:2] == (corpus.HEIGHT, corpus.WIDTH)
        focal = corpus.focal_of(description, index)
        assert (frame.camera is None) == (focal is None)
        if frame.camera is not None and description.clock == "regular":
            assert frame.camera.focal == pytest.approx(focal)
            np.testing.assert_allclose(frame.camera.K[:2, 2], (15.5, 11.5), atol=1e-9)
    first = frames[0]
    assert first.odometry is not None
    np.testing.assert_allclose(first.odometry[:3, 3], corpus.pose_of(0), atol=0.02)
    named = [text for text in source.warnings if "calibration" not in text and "CameraInfo" not in text]
    assert bool(named) == clock.warned, named


@pytest.mark.parametrize("part", range(4))
def test_recordings_of_every_kind_give_what_is_right(part: int, tmp_path: Path) -> None:
    wrong = []
    for i, description in enumerate(corpus.descriptions(240)[part::4]):
        folder = tmp_path / str(i)
        folder.mkdir()
        try:
            check(corpus.write(folder, description), description)
        except Exception as error:  # noqa: BLE001 - every one is reported with its description
            wrong.append(f"{description}: {type(error).__name__}: {str(error).splitlines()[0]}")
    assert not wrong, "\n".join(wrong)
