"""Feature tracks for VINS-Fusion: one number per point over images and keyframes, and the message that it reads."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.live.feature_tracks import (
    ID_LIMIT,
    VINS_CHANNELS,
    Features,
    FeatureTracks,
    TrackSettings,
    vins_features,
)

SIZE = (640, 480)
CAMERA = Camera(
    640, 480, np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1]]), "plumb_bob", np.array([-0.1, 0.02, 0, 0])
)


def view(points: np.ndarray, frame: int) -> np.ndarray:
    """Where points of the first image are in image `frame`: the scene turns, grows and drifts a little."""
    angle, scale = 0.01 * frame, 1.0 + 0.01 * frame
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - [320, 240]) @ turn.T + [320 + 2.0 * frame, 240 - frame]


def matches(keyframe: int, frame: int, *, seed: int, count: int = 3000) -> Correspondences:
    """Matches at points drawn anew for every image, as a dense matcher gives them, with 0.1 px of noise."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-100, -100], [740, 580], (count, 2))
    reference, query = view(points, keyframe), view(points, frame)
    inside = ((reference >= 0) & (reference < SIZE) & (query >= 0) & (query < SIZE)).all(axis=1)
    query = query + rng.normal(0, 0.1, query.shape)
    score = rng.uniform(0.2, 1, count)
    keep = [a[inside].astype(np.float32) for a in (reference, query, score)]
    return Correspondences(*keep, 0.9, SIZE, SIZE)


def stamp(frame: int) -> int:
    return 10**18 + frame * 33_000_000


def followed(keyframes: dict[int, int], **options: float) -> list[Features]:
    """Features of images 1 to 20; `keyframes` says from which image on which keyframe is used."""
    tracks = FeatureTracks(TrackSettings(**options))  # type: ignore[arg-type]
    found, keyframe = [], 0
    for frame in range(1, 21):
        keyframe = keyframes.get(frame, keyframe)
        found.append(tracks.update(matches(keyframe, frame, seed=frame), stamp(frame), stamp(keyframe)))
    return found


@pytest.mark.parametrize("keyframes", [{}, {6: 5, 11: 10, 16: 15}], ids=["one keyframe", "four keyframes"])
def test_a_number_stays_with_its_point(keyframes: dict[int, int]) -> None:
    found = followed(keyframes)
    first, last = found[0], found[-1]
    common, i, j = np.intersect1d(first.id, last.id, return_indices=True)
    # of the 300 points of the first image some leave the field of view, others have no match near them
    assert len(common) > 100
    turn = [view(np.array([[0.0, 0.0], [1, 0], [0, 1]]), frame) for frame in (1, 20)]
    to_first = np.column_stack([turn[0][1:] - turn[0][0]])
    origin = np.linalg.solve(to_first.T, (first.xy[i] - turn[0][0]).T).T
    error = np.linalg.norm(view(origin, 20) - last.xy[j], axis=1)
    assert np.median(error) < 0.3 * (1 + len(keyframes))
    assert np.quantile(error, 0.9) < 2.0 * (1 + len(keyframes))


def test_no_number_is_given_twice_and_points_keep_their_distance() -> None:
    found = followed({6: 5, 11: 10}, max_tracks=200, min_distance_px=20.0)
    for features in found:
        assert len(set(features.id.tolist())) == len(features) <= 200
        gaps = np.linalg.norm(features.xy[:, None] - features.xy[None], axis=2) + 1e9 * np.eye(len(features))
        assert np.quantile(gaps.min(axis=1), 0.05) > 15
    assert len(found[-1]) > 150


def test_points_that_leave_are_replaced() -> None:
    found = followed({frame: frame - 1 for frame in range(2, 21)})
    assert len(found[-1]) == len(found[0]) == 300
    assert found[-1].id.max() > found[0].id.max()


def test_a_keyframe_of_before_is_taken_up_again() -> None:
    tracks = FeatureTracks()
    first = tracks.update(matches(0, 1, seed=1), stamp(1), stamp(0))
    tracks.update(matches(1, 2, seed=2), stamp(2), stamp(1))
    again = tracks.update(matches(0, 3, seed=3), stamp(3), stamp(0))
    assert len(np.intersect1d(first.id, again.id)) > 200


def test_outliers_are_left_out() -> None:
    m = matches(0, 1, seed=1)
    right = np.arange(len(m)) % 2 == 0
    wrong = m.query_xy.copy()
    wrong[~right] = np.random.default_rng(0).uniform(0, 400, (int((~right).sum()), 2))
    broken = Correspondences(m.reference_xy, wrong, m.score, m.overlap, SIZE, SIZE)
    tracks = FeatureTracks()
    tracks.update(broken, stamp(1), stamp(0), right)
    found = tracks.update(matches(0, 2, seed=2), stamp(2), stamp(0))
    assert len(found) == 300


def test_no_matches_and_no_inliers_are_no_points() -> None:
    tracks = FeatureTracks()
    tracks.update(matches(0, 1, seed=1), stamp(1), stamp(0))
    assert len(tracks.update(Correspondences.empty(SIZE, SIZE), stamp(2), stamp(0))) == 0
    m = matches(0, 3, seed=3)
    assert len(tracks.update(m, stamp(3), stamp(0), np.zeros(len(m), np.bool_))) == 0


def test_memory_is_bounded() -> None:
    tracks = FeatureTracks(TrackSettings(max_history=4))
    for frame in range(1, 12):
        tracks.update(matches(frame - 1, frame, seed=frame, count=500), stamp(frame), stamp(frame - 1))
    assert len(tracks._seen) == 4


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="min_distance_px"):
        TrackSettings(min_distance_px=0.0)


def test_vins_reads_nine_channels_of_undistorted_points() -> None:
    found = followed({})
    message = vins_features(found[5], CAMERA, found[4])
    assert len(VINS_CHANNELS) == 9
    assert message.channels.shape == (9, len(found[5]))
    assert message.channels.dtype == message.points.dtype == np.float32
    assert (message.points[:, 2] == 1).all()
    np.testing.assert_allclose(CAMERA.project(message.points.astype(float)), found[5].xy, atol=1e-3)
    np.testing.assert_array_equal(message.channels[0], found[5].id)
    np.testing.assert_allclose(message.channels[2:4].T, found[5].xy, atol=1e-3)
    assert not message.channels[[1, 6, 7, 8]].any()


def test_velocities_are_those_of_normalised_coordinates_per_second() -> None:
    found = followed({})
    message = vins_features(found[5], CAMERA, found[4])
    _, here, there = np.intersect1d(found[5].id, found[4].id, return_indices=True)
    expected = (CAMERA.normalise(found[5].xy[here]) - CAMERA.normalise(found[4].xy[there])) / 0.033
    np.testing.assert_allclose(message.channels[4:6, here].T, expected, atol=1e-4)
    new = np.setdiff1d(np.arange(len(found[5])), here)
    assert not message.channels[4:6, new].any()
    assert not vins_features(found[5], CAMERA, None).channels[4:6].any()


def test_numbers_survive_float32() -> None:
    tracks = FeatureTracks()
    tracks._next_id = ID_LIMIT - 10
    found = tracks.update(matches(0, 1, seed=1), stamp(1), stamp(0))
    channels = vins_features(found, CAMERA, None).channels
    assert len(set(channels[0].tolist())) == len(found)
    assert channels[0].max() == ID_LIMIT - 1
