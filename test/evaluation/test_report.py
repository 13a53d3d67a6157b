"""The report, its pictures and the summary, from small hand-made records."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from ros2_densematch.evaluation.accuracy import assess
from ros2_densematch.evaluation.animation import Animation
from ros2_densematch.evaluation.lengths import length_in_words
from ros2_densematch.evaluation.pictures import (
    OUTLIER_RGB,
    match_picture,
    motion_picture,
    smaller,
    viridis,
    warp_picture,
    with_caption,
    with_legend,
)
from ros2_densematch.evaluation.plots import TrajectoryView, error_plot, trajectory_figure
from ros2_densematch.evaluation.report import ReportPicture, write_report
from ros2_densematch.evaluation.summary import (
    FrameRecord,
    frame_counts,
    match_counts,
    stage_times,
    versions,
    write_json,
)
from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame


def records(n: int = 40, *, posed: bool = True) -> list[FrameRecord]:
    """A run with a loss in its middle."""
    found = []
    for i in range(n):
        status = "INITIALISED" if i == 0 else "LOST" if 20 <= i < 24 else "TRACKED"
        if not posed and i:
            status = "NO_CALIBRATION"
        good = posed and status != "LOST"
        found.append(
            FrameRecord(
                index=i,
                stamp_ns=10**9 + i * 10**8,
                status=status,
                reason=f"{100 + i} of 200 matches agree" if good else "no calibration" if not posed else "blank image",
                is_keyframe=i % 10 == 0,
                keyframe_index=0 if i else None,
                num_matches=200 if i else None,
                num_inliers=100 + i if good and i else None,
                inlier_ratio=(100 + i) / 200 if good and i else None,
                overlap=0.5 if i else None,
                scale="UNIT" if posed else "NONE",
                timings_ms={"encode": 10.0, "match": 20.0, "pose": 1.0} if i else {"encode": 10.0},
                T_world_from_camera=np.eye(4) if good else None,
            )
        )
    return found


def summary_of(rows: list[FrameRecord], **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "input": {"path": "bags/one", "name": "one", "image": "640 x 480, /image", "duration_s": 3.9},
        "matcher": {"name": "sift", "preset": "base", "weights": "none", "device": "cpu"},
        "estimator": {"name": "PoseLib LO-RANSAC", "max_epipolar_error_px": 1.0},
        "frames": frame_counts(rows),
        "matches": match_counts(rows),
        "timings_ms": stage_times([r.timings_ms for r in rows]),
        "trajectory": {"scale": "UNIT"},
        "no_pose_reason": None,
        "accuracy": None,
        "stopped_early": None,
        "warnings": [],
        "versions": versions(),
        "files": ["summary.json"],
    }
    return {**base, **changes}


def view_of(rows: list[FrameRecord], *, truth: bool) -> TrajectoryView:
    n = len(rows)
    angle = np.linspace(0, 3, n)
    path = np.stack([np.cos(angle), 0.1 * angle, np.sin(angle)], 1)
    error = np.full(n, 0.01)
    error[5] = np.nan
    return TrajectoryView(
        0.1 * np.arange(n),
        path,
        np.zeros(n, np.int64),
        np.array([r.is_keyframe for r in rows]),
        ground_truth=path + 0.01 if truth else None,
        position_error=error if truth else None,
        rotation_error_deg=error if truth else None,
    )


ACCURACY = {
    "poses": 36,
    "alignment": "similarity",
    "ate": {"rmse_m": 0.0123, "percent_of_path": 0.42},
    "rpe_delta": "1 frame (0.1 s)",
    "rpe": {"rotation_rmse_deg": 0.05, "translation_rmse_m": 0.002},
}


def test_the_page_names_input_matcher_estimator_and_errors(tmp_path: Path) -> None:
    rows = records()
    write_report(
        tmp_path / "r.html",
        summary_of(rows, accuracy=ACCURACY),
        rows,
        trajectory=view_of(rows, truth=True),
        min_inliers=20,
    )
    page = (tmp_path / "r.html").read_text("utf-8")
    for words in (
        *("bags/one", "sift, preset base, weights none, on cpu", "PoseLib LO-RANSAC, threshold 1 px"),
        *("12.3 mm", "0.42 % of the path", "0.05°", "Error over time", "4 lost", "blank image"),
    ):
        assert words in page, words
    assert page.count("<svg") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_run_without_calibration_says_so_and_shows_no_trajectory(tmp_path: Path) -> None:
    rows = records(posed=False)
    write_report(
        tmp_path / "r.html", summary_of(rows, trajectory=None, no_pose_reason="no calibration: name one"), rows
    )
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "Correspondences only, no poses: no calibration: name one" in page
    assert "Trajectory" not in page
    assert "lost below" not in page


def test_one_frame_and_a_camera_that_stands_still_are_drawn(tmp_path: Path) -> None:
    rows = records(1)
    view = TrajectoryView(np.zeros(1), np.zeros((1, 3)), np.zeros(1, np.int64), np.ones(1, np.bool_), unit="units")
    write_report(tmp_path / "r.html", summary_of(rows), rows, trajectory=view)
    assert "<svg" in (tmp_path / "r.html").read_text("utf-8")


def test_names_from_the_input_are_text_and_never_markup(tmp_path: Path) -> None:
    rows = records(3)
    evil = "<script>alert(1)</script>"
    source = {"path": evil, "name": evil, "image": evil, "duration_s": 1.0}
    summary = summary_of(rows, input=source, warnings=[evil], stopped_early=evil)
    summary["frames"]["status"]["TRACKED"]["reasons"][0]["reason"] = evil
    picture = ReportPicture(np.zeros((20, 20, 3), np.uint8), f'"{evil}')
    write_report(tmp_path / "r.html", summary, rows, pictures=[picture])
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<script" not in page
    assert re.search(r'alt="&quot;&lt;script', page)


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    counts = frame_counts(records())
    assert counts["total"] == 40
    assert counts["status"]["TRACKED"] == {
        "count": 35,
        "reasons": [{"reason": "101 of 200 matches agree", "count": 35}],
    }
    assert counts["status"]["LOST"] == {"count": 4, "reasons": [{"reason": "blank image", "count": 4}]}
    assert list(counts["status"]) == ["TRACKED", "LOST", "INITIALISED"]


def test_times_are_of_the_frames_where_a_stage_ran() -> None:
    times = stage_times([{"encode": 10.0}, {"encode": 20.0, "match": 4.0}, {}])
    assert times["encode"] == {"median": 15.0, "p95": 19.5}
    assert times["match"] == {"median": 4.0, "p95": 4.0}
    assert times["pose"] == {"median": None, "p95": None}
    assert times["total"]["median"] == 17.0


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    write_json(
        tmp_path / "s.json", {"a": math.nan, "b": [np.float32(np.inf), np.int64(3)], "c": np.array([1.0, np.nan])}
    )
    assert json.loads((tmp_path / "s.json").read_text("utf-8")) == {"a": None, "b": [None, 3], "c": [1.0, None]}


def matches_of(n: int, size: tuple[int, int]) -> Correspondences:
    rng = np.random.default_rng(0)
    xy = (rng.random((n, 2)) * size).astype(np.float32)
    return Correspondences(xy, xy + 1, rng.random(n).astype(np.float32), 0.5, size, size)


@pytest.mark.parametrize("n", [0, 1, 5000])
@pytest.mark.parametrize("size", [(640, 480), (1226, 370), (480, 640), (16, 16)])
def test_match_pictures_have_the_width_asked_for(n: int, size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    matches = matches_of(n, size)
    inliers = np.arange(n) % 2 == 0
    picture = match_picture(image, image[..., 0], matches, inliers, width=800)
    assert picture.shape[1] == 800
    assert picture.dtype == np.uint8
    drawn = (picture != 90).any(2) & (picture != 255).any(2)
    assert drawn.any() == (n > 0)


def test_many_matches_are_thinned_to_a_readable_number() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    few = match_picture(image, image, matches_of(5000, (640, 480)), max_lines=30)
    many = match_picture(image, image, matches_of(5000, (640, 480)), max_lines=300)
    assert (few > 0).sum() < 0.6 * (many > 0).sum()


def test_points_that_are_not_finite_are_left_out() -> None:
    image = np.full((48, 64, 3), 90, np.uint8)
    xy = np.array([[np.nan, 1.0]], np.float32)
    matches = Correspondences(xy, xy, np.ones(1, np.float32), 0.1, (64, 48), (64, 48))
    picture = match_picture(image, image, matches)
    assert set(np.unique(picture)) == {90, 255}


def test_the_warp_brings_the_query_into_the_reference() -> None:
    rng = np.random.default_rng(0)
    query = np.repeat(np.repeat(rng.integers(0, 255, (24, 32, 3), np.uint8), 10, 0), 10, 1)
    reference = np.roll(query, 20, axis=1)  # reference pixel x is query pixel x - 20
    grid = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1).astype(np.float32)
    certainty = (grid[..., 0] >= 20).astype(np.float32)
    warp = DenseWarp(grid - np.array([20, 0], np.float32), certainty, (320, 240), (320, 240))
    picture = warp_picture(reference, query, warp, width=3 * 320 + 16).astype(int)
    left, middle, right = picture[:, :320], picture[:, 328:648], picture[:, 656:]
    assert np.abs(left - middle)[:, 30:].mean() < 4.0
    assert (middle[:, :15] == 255).all()  # no certainty: white
    assert (right[:, 40:] == viridis(np.ones(1))[0]).all()


def test_the_legend_shows_the_colours_of_the_scores_and_of_outliers() -> None:
    picture = np.zeros((40, 640, 3), np.uint8)
    for outliers in (True, False):
        strip = with_legend(picture, outliers=outliers)[40:].reshape(-1, 3).tolist()
        assert viridis(np.array([0.25]))[0].tolist() in strip
        assert viridis(np.array([1.0]))[0].tolist() in strip
        assert (list(OUTLIER_RGB) in strip) == outliers


def test_trails_lead_from_the_place_in_the_keyframe_to_the_place_in_the_frame() -> None:
    grey = np.full((480, 640), 128, np.uint8)
    one = matches_of(1, (640, 480))
    moved = replace(one, reference_xy=np.float32([[100, 200]]), query_xy=np.float32([[300, 200]]))
    changed = np.ptp(motion_picture(grey, moved).astype(int), axis=2) > 30
    assert changed[198:203, 150:250].any(0).all()
    assert not changed[:190].any()
    assert np.ptp(motion_picture(grey, moved, np.zeros(1, np.bool_)).astype(int), axis=2).max() == 0
    assert motion_picture(grey, None, width=320).shape == (240, 320, 3)


def test_no_line_is_drawn_through_frames_that_were_lost() -> None:
    view = assess(records(), None).view  # frames 20 to 23 of 40 are lost
    assert view is not None
    assert view.pieces.tolist() == [0] * 20 + [1] * 16
    drawn = [line for line in trajectory_figure(view).axes[0].lines if line.get_linewidth() == 1.8]
    assert [len(line.get_xdata()) for line in drawn] == [20, 16]


def test_every_axis_has_its_unit() -> None:
    rows = records()
    for truth, unit in ((True, "m"), (False, "units")):
        view = replace(view_of(rows, truth=truth), unit=unit)
        for axes in trajectory_figure(view).axes:
            labels = [axes.get_xlabel(), axes.get_ylabel(), *([axes.get_zlabel()] if axes.name == "3d" else [])]
            assert all(f"({unit})" in label for label in labels)


@pytest.mark.parametrize(("largest_m", "words"), [(0.004, "position error (mm)"), (0.4, "position error (m)")])
def test_errors_are_shown_in_millimetres_or_metres_by_their_size(largest_m: float, words: str) -> None:
    view = view_of(records(), truth=True)
    error = np.full(len(view.positions), largest_m)
    assert words in error_plot(replace(view, position_error=error), records())


def test_lengths_in_words() -> None:
    assert [length_in_words(v) for v in (0.0, 0.00456, 0.0994, 0.1, 1.234, 123.4)] == [
        "0 mm", "4.56 mm", "99.4 mm", "0.1 m", "1.23 m", "123 m",
    ]  # fmt: skip


def moving_pictures(path: Path) -> Iterator[np.ndarray]:
    if path.suffix == ".mp4":
        video = cv2.VideoCapture(str(path))
        while (read := video.read())[0]:
            yield read[1]
        return
    with Image.open(path) as shown:
        for picture in ImageSequence.Iterator(shown):
            yield np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("kind", ["gif", "webp", "mp4"])
def test_a_moving_picture_covers_the_whole_replay(kind: str, tmp_path: Path) -> None:
    animation = Animation(kind, width=64, most_frames=8)
    for i in range(20):
        image = np.full((48, 64, 3), 10 * i, np.uint8)
        frame = Frame(image, 10**9 + i * 10**8, i)
        animation.add(frame, TrackedFrame(i, frame.stamp_ns, Status.LOST, "lost"))
    animation.write(tmp_path / animation.name)
    grey = [float(np.median(picture[:48])) for picture in moving_pictures(tmp_path / animation.name)]
    assert 4 <= len(grey) <= 8
    np.testing.assert_allclose(np.diff(grey), 40, atol=16)
    assert grey[-1] > 120
    assert sorted(f.name for f in tmp_path.iterdir()) == [animation.name]


def test_a_caption_is_cut_to_the_width() -> None:
    picture = np.zeros((40, 120, 3), np.uint8)
    captioned = with_caption(picture, "words " * 100)
    assert captioned.shape[1] == 120
    assert captioned.shape[0] > 40
    assert (captioned[40:] < 128).any()


def test_kept_images_are_small_rgb() -> None:
    assert smaller(np.zeros((2000, 1000), np.uint8)).shape == (640, 320, 3)
    assert smaller(np.zeros((100, 50, 3), np.uint8)).shape == (100, 50, 3)
