"""The tracker, case by case: each frame gets a status and a reason, and no length is made up."""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_world import CAMERA, PointMatcher, World, image_of, look, run, similarity_error, through

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import Scale
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.set_back import RestartingTracker
from ros2_densematch.tracking.tracker import Status, Tracker, TrackerConfig


@pytest.fixture(scope="module")
def world() -> World:
    return World(points=4500)


SIDEWAYS = through([(0, look(-1, 0, 0)), (16, look(0.6, 0.1, 0.2, -4))])


def depth_of(world: World, T: np.ndarray) -> np.ndarray:
    """A depth image that knows the depth around each point in view."""
    depth = np.zeros((480, 640), np.float32)
    _, xy, z = world.see(T, CAMERA)
    for (x, y), d in zip(np.rint(xy).astype(int), z, strict=True):
        depth[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = d
    return depth


def test_first_frame_is_the_first_keyframe_at_the_origin(world: World) -> None:
    first = run(Tracker(PointMatcher(world, SIDEWAYS)), SIDEWAYS[:1])[0]
    assert first.status is Status.INITIALISED
    assert first.is_keyframe
    assert first.keyframe_index == first.index == 0
    np.testing.assert_array_equal(first.T_world_from_camera, np.eye(4))
    assert first.scale is Scale.NONE


def test_pure_rotation_is_chained_and_the_position_held(world: World) -> None:
    turn = through([(0, look(0, 0, 0)), (15, look(0, 0, 0, 20, 5))])
    results = run(Tracker(PointMatcher(world, turn)), turn)
    for result, truth in zip(results, turn, strict=True):
        assert result.scale is Scale.NONE
        np.testing.assert_allclose(result.T_world_from_camera[:3, 3], 0, atol=1e-12)
        assert poses.rotation_angle_deg(result.T_world_from_camera, poses.inverse(turn[0]) @ truth) < 0.15


def test_short_baseline_gets_no_length(world: World) -> None:
    still = through([(0, look(0, 0, 0)), (8, look(0.01, 0, 0))])
    results = run(Tracker(PointMatcher(world, still)), still)
    assert {r.scale for r in results} == {Scale.NONE}
    assert all("position held" in r.reason for r in results[1:])


def test_unit_scale_is_carried_over_keyframes(world: World) -> None:
    path = through([(0, look(-1.5, 0, 0)), (25, look(0.5, 0, 0)), (25, look(0.5, 0.2, 2.0, 8))])
    results = run(Tracker(PointMatcher(world, path), TrackerConfig(keyframe_parallax_deg=4.0)), path)
    assert len({r.keyframe_id for r in results}) > 4
    assert {r.segment for r in results} == {0}
    assert similarity_error(results, path)[0] < 0.006
    # the same unit at both ends: ratio of estimated to true steps
    steps = [
        np.linalg.norm(results[b].T_world_from_camera[:3, 3] - results[a].T_world_from_camera[:3, 3])
        / np.linalg.norm(path[b][:3, 3] - path[a][:3, 3])
        for a, b in ((8, 20), (32, 44))
    ]
    assert steps[1] / steps[0] == pytest.approx(1.0, abs=0.02)


def test_depth_of_the_keyframe_gives_metres_at_once(world: World) -> None:
    tracker = Tracker(PointMatcher(world, SIDEWAYS))
    results = run(tracker, SIDEWAYS, depth=lambda i: depth_of(world, SIDEWAYS[i]) if i % 5 == 0 else None)
    assert {r.scale for r in results} == {Scale.METRIC}
    for result, truth in zip(results, SIDEWAYS, strict=True):
        expected = poses.inverse(SIDEWAYS[0]) @ truth
        assert np.linalg.norm(result.T_world_from_camera[:3, 3] - expected[:3, 3]) < 0.01
    last = results[-1].relative_pose
    assert last.scale is Scale.METRIC
    assert 0 < last.scale_std < 0.1
    np.linalg.cholesky(last.covariance)


def test_a_keyframe_without_depth_is_replaced_by_the_first_frame_that_measures_it(world: World) -> None:
    """Depth with every fifth frame: a keyframe made in between knows its points through others only."""
    tracker = Tracker(PointMatcher(world, SIDEWAYS), TrackerConfig(keyframe_parallax_deg=2.0))
    results = run(tracker, SIDEWAYS, depth=lambda i: depth_of(world, SIDEWAYS[i]) if i % 5 == 0 else None)
    keyframes = [r.index for r in results if r.is_keyframe]
    without = [k for k in keyframes if k % 5]
    assert without, "the policy makes keyframes between the depth images"
    for k in without:
        following = k + 5 - k % 5
        if following < len(results):
            assert following in keyframes
    assert any("it has a depth image and the keyframe has none" in r.reason for r in results)
    assert not any("back to keyframe" in r.reason for r in results), "the metre does not drift"
    expected = poses.inverse(SIDEWAYS[0]) @ SIDEWAYS[-1]
    assert np.linalg.norm(results[-1].T_world_from_camera[:3, 3] - expected[:3, 3]) < 0.02


def test_metric_covariance_covers_the_error(world: World) -> None:
    depth = depth_of(world, SIDEWAYS[0])
    squares = []
    for index in range(1, len(SIDEWAYS)):
        tracker = Tracker(PointMatcher(world, SIDEWAYS))
        pair = run(tracker, SIDEWAYS[[0, index]], numbers=[0, index], depth=lambda i: depth if i == 0 else None)
        pose = pair[1].relative_pose
        truth = poses.inverse(SIDEWAYS[index]) @ SIDEWAYS[0]
        error = np.concatenate(
            [
                truth[:3, 3] - pose.T_query_from_reference[:3, 3],
                poses.log_rotation(truth[:3, :3] @ pose.T_query_from_reference[:3, :3].T),
            ]
        )
        squares.append(error @ np.linalg.solve(pose.covariance, error) / 6)
    assert 0.1 < np.median(squares) < 3.0


def test_depth_that_begins_later_turns_a_unit_into_metres_in_a_flagged_segment(world: World) -> None:
    tracker = Tracker(PointMatcher(world, SIDEWAYS))
    results = run(tracker, SIDEWAYS, depth=lambda i: depth_of(world, SIDEWAYS[i]) if i >= 12 else None)
    changed = next(r for r in results if r.scale is Scale.METRIC)
    assert changed.index == 12
    assert changed.segment == 1
    assert "metres" in changed.reason
    length = np.linalg.norm(results[-1].T_world_from_camera[:3, 3] - changed.T_world_from_camera[:3, 3])
    assert length == pytest.approx(np.linalg.norm(SIDEWAYS[-1][:3, 3] - SIDEWAYS[12][:3, 3]), rel=0.05)


def test_stereo_pair_gives_metres_at_once(world: World) -> None:
    baseline = 0.2
    right_camera = Camera(640, 480, CAMERA.K, P=np.column_stack([CAMERA.K, [-500.0 * baseline, 0, 0]]))
    shift = poses.make_pose(np.eye(3), [baseline, 0, 0])
    both = np.concatenate([SIDEWAYS, SIDEWAYS @ shift])  # the matcher's images: left ones, then right ones
    fields = {
        "right_image": lambda i: image_of(i + len(SIDEWAYS)),
        "right_camera": lambda i: right_camera,
    }
    results = run(Tracker(PointMatcher(world, both)), both, numbers=list(range(len(SIDEWAYS))), **fields)
    assert {r.scale for r in results} == {Scale.METRIC}
    expected = poses.inverse(SIDEWAYS[0]) @ SIDEWAYS[-1]
    np.testing.assert_allclose(results[-1].T_world_from_camera[:3, 3], expected[:3, 3], atol=0.05)


def test_stereo_without_a_baseline_is_left_out_with_the_reason(world: World) -> None:
    fields = {"right_image": image_of, "right_camera": lambda i: CAMERA}
    results = run(Tracker(PointMatcher(world, SIDEWAYS)), SIDEWAYS[:5], **fields)
    assert "stereo not used" in results[0].reason
    assert results[-1].scale is not Scale.METRIC


def test_odometry_gives_the_length_of_the_first_baseline(world: World) -> None:
    tracker = Tracker(PointMatcher(world, SIDEWAYS))
    results = run(tracker, SIDEWAYS, odometry=lambda i: SIDEWAYS[i])
    assert results[-1].scale is Scale.METRIC
    expected = poses.inverse(SIDEWAYS[0]) @ SIDEWAYS[-1]
    np.testing.assert_allclose(results[-1].T_world_from_camera[:3, 3], expected[:3, 3], atol=0.08)


def test_without_calibration_there_are_matches_but_no_pose(world: World) -> None:
    results = run(Tracker(PointMatcher(world, SIDEWAYS)), SIDEWAYS, camera=lambda i: None)
    assert [r.status for r in results[1:]] == [Status.NO_CALIBRATION] * (len(SIDEWAYS) - 1)
    assert all(r.T_world_from_camera is None for r in results)
    assert all(len(r.correspondences) > 100 for r in results[1:])
    assert "CameraInfo" in results[-1].reason


@pytest.fixture(scope="module")
def two_rooms(world: World) -> World:
    """A second room, 300 m to the right, that shares nothing with the first."""
    both = World()
    both.points = np.concatenate([world.points, world.points + np.array([300.0, 0, 0])])
    return both


def test_loss_without_return_begins_a_new_flagged_segment(two_rooms: World) -> None:
    path = through([(0, look(-1.5, 0, 0)), (20, look(0, 0, 0)), (8, look(299, 0, 0)), (20, look(300, 0, 0))])
    blind = frozenset(range(21, 29))
    tracker = Tracker(PointMatcher(two_rooms, path, blind=blind), TrackerConfig(max_lost_frames=5))
    results = run(tracker, path)
    assert {results[i].status for i in blind} == {Status.LOST}
    after = [r for r in results if r.segment == 1]
    assert "new segment 1" in after[0].reason
    assert after[0].index <= 31
    assert after[-1].scale is Scale.UNIT


class CountsSearches(PointMatcher):
    """Notes for which images it searches for rotations, zooms and slants."""

    searched: ClassVar[list[int]] = []

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        self.searched.append(query.data[0])
        return super()._match(reference, query, max_matches=max_matches, seed=seed)

    def _match_neighbours(
        self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int
    ) -> Correspondences:
        return PointMatcher._match(self, reference, query, max_matches=max_matches, seed=seed)


def test_the_search_for_turned_views_is_for_frames_that_stay_lost_and_one_keyframe_of_each(world: World) -> None:
    path = through([(0, look(-2.0, 0, 0)), (24, look(2.0, 0, 0)), (40, look(2.0, 0, 0))])
    blind = frozenset(range(26, 60))
    CountsSearches.searched = []
    config = TrackerConfig(keyframe_inliers=0.8, max_lost_frames=100)
    results = run(Tracker(CountsSearches(world, path, blind=blind), config), path)
    lost = [r.index for r in results if r.status is Status.LOST]
    assert set(lost) == blind
    assert len({r.keyframe_id for r in results}) > 2
    searched = collections.Counter(CountsSearches.searched)
    assert not [i for i in searched if results[i].status is Status.TRACKED and i not in blind and i < 26]
    # the first half second after frame 25: the camera cannot have rolled far
    assert not [i for i in searched if 27 <= i <= 25 + 15]
    late = [i for i in lost if i > 25 + 18]
    assert max(searched[i] for i in late) == 1
    assert sum(searched[i] for i in late) >= len(late) // 2


def test_a_lost_frame_that_shows_nothing_is_not_searched_for(world: World) -> None:
    path = through([(0, look(-1.0, 0, 0)), (20, look(0.5, 0, 0)), (20, look(0.6, 0, 0))])
    calls: list[tuple[int, int]] = []

    class Counting(PointMatcher):
        def _match(self, reference: Encoding, query: Encoding, **options: Any) -> Correspondences:
            calls.append((reference.data[0], query.data[0]))
            return super()._match(reference, query, **options)

    matcher = Counting(world, path, blind=frozenset(range(21, 34)))
    tracker, results = Tracker(matcher), []
    for i in range(len(path)):
        image = image_of(i)
        if i in matcher.blind:  # a white wall; the first two pixels hold the number of the image
            image[1:] = np.random.default_rng(i).normal(230, 2, image[1:].shape).astype(np.uint8)
            image[0, 2:] = 230
        results.append(tracker.process(Frame(image, 1_000_000_000 + 33_333_333 * i, i, CAMERA)))
    lost = [r for r in results if r.status is Status.LOST]
    assert [r.index for r in lost] == sorted(matcher.blind)
    assert {r.reason for r in lost[1:]} == {"lost: the image has no texture above its noise, so nothing can be matched"}
    assert {query for _, query in calls if query in matcher.blind} == {21}  # the first is searched for in full
    assert results[34].status is Status.RELOCALISED


def test_after_a_new_segment_the_old_one_is_found_again(two_rooms: World) -> None:
    keys = [(0, look(-1.5, 0, 0)), (20, look(0, 0, 0)), (8, look(299, 0, 0)), (14, look(300, 0, 0))]
    path = through([*keys, (6, look(0, 0, 0)), (12, look(-1.0, 0, 0))])
    blind = frozenset([*range(21, 29), *range(43, 49)])
    tracker = Tracker(PointMatcher(two_rooms, path, blind=blind), TrackerConfig(max_lost_frames=5))
    results = run(tracker, path)
    assert 1 in {r.segment for r in results}
    back = next(r for r in results if r.status is Status.RELOCALISED)
    assert back.segment == 0
    known = [*range(21), *range(back.index, len(path))]
    assert similarity_error([results[i] for i in known], path[known])[0] < 0.01


def test_a_later_segment_ends_when_a_keyframe_of_the_older_one_comes_into_view(world: World) -> None:
    path = through(
        [
            (0, look(-1.0, 0, 2, -60)),
            (12, look(-0.4, 0, 2, -55)),
            (8, look(0, 0, 2, 60)),
            (12, look(0.6, 0, 2, 55)),
            (20, look(0, 0, 2, -50)),
            (16, look(-0.6, 0, 2.1, -50)),  # two frames of it must agree
        ]
    )
    tracker = Tracker(PointMatcher(world, path, blind=frozenset(range(13, 21))), TrackerConfig(max_lost_frames=5))
    results = run(tracker, path)
    assert results[30].segment == 1
    back = next(r for r in results if r.status is Status.RELOCALISED)
    assert "segment 0 found again" in back.reason
    assert results[-1].segment == 0
    assert {k.segment for k in tracker.keyframes} == {0}
    known = [*range(13), *range(back.index, len(path))]
    assert similarity_error([results[i] for i in known], path[known])[0] < 0.02


def test_nothing_in_view_from_the_start_begins_again_where_something_is(world: World) -> None:
    tracker = Tracker(PointMatcher(world, SIDEWAYS, blind=frozenset(range(4))))
    results = run(tracker, SIDEWAYS)
    assert [r.status for r in results[1:4]] == [Status.LOST] * 3
    assert results[5].status is not Status.LOST
    assert results[-1].scale is Scale.UNIT


def test_mask_leaves_pixels_out_of_encoding_and_matches(world: World) -> None:
    mask = np.ones((480, 640), bool)
    mask[300:] = False
    results = run(Tracker(PointMatcher(world, SIDEWAYS)), SIDEWAYS[:6], mask=lambda i: mask)
    for result in results[1:]:
        assert result.status is Status.TRACKED
        assert result.correspondences.reference_xy[:, 1].max() < 300.5


def test_rejected_frames_say_why_and_disturb_nothing(world: World) -> None:
    tracker = Tracker(PointMatcher(world, SIDEWAYS))
    good = run(tracker, SIDEWAYS[:4])
    bad_camera = SimpleNamespace(width=640, height=480, K=np.full((3, 3), np.nan), D=np.zeros(0))
    stamp = 2_000_000_000
    bad = {
        "finite": Frame(image_of(4), stamp, 4, camera=bad_camera),  # type: ignore[arg-type]
        "calibrated for": Frame(np.zeros((240, 320), np.uint8), stamp, 4, camera=CAMERA),
        "uint8": Frame(np.zeros((480, 640), np.uint16), stamp, 4, camera=CAMERA),  # type: ignore[arg-type]
        "channels": Frame(np.zeros((480, 640, 4), np.uint8), stamp, 4, camera=CAMERA),
        "mask": Frame(image_of(4), stamp, 4, camera=CAMERA, mask=np.ones((2, 2), bool)),
        "depth": Frame(image_of(4), stamp, 4, camera=CAMERA, depth=np.ones((2, 2), np.float32)),
        "odometry": Frame(image_of(4), stamp, 4, camera=CAMERA, odometry=np.full((4, 4), np.nan)),
        "is not after": Frame(image_of(4), good[-1].stamp_ns, 4, camera=CAMERA),
    }
    for words, frame in bad.items():
        answer = tracker.process(frame)
        assert answer.status is Status.REJECTED
        assert words in answer.reason
    assert tracker.process(Frame(image_of(4), stamp, 4, camera=CAMERA)).status is Status.TRACKED


def test_another_image_size_with_its_camera_becomes_a_keyframe(world: World) -> None:
    class HalfSize(PointMatcher):
        def _encode(self, image, *, reference, mask):  # type: ignore[no-untyped-def]
            number, ids, xy = super()._encode(image, reference=reference, mask=mask)
            scale = image.shape[1] / 640
            return number, ids, (xy + 0.5) * scale - 0.5

    tracker = Tracker(HalfSize(world, SIDEWAYS))
    run(tracker, SIDEWAYS[:10])
    small = np.ascontiguousarray(image_of(10)[:240, :320])
    answer = tracker.process(Frame(small, 3_000_000_000, 10, camera=CAMERA.resized(320, 240)))
    assert answer.status is Status.NEW_KEYFRAME
    assert "image size changed" in answer.reason
    again = tracker.process(
        Frame(np.ascontiguousarray(image_of(11)[:240, :320]), 3_100_000_000, 11, CAMERA.resized(320, 240))
    )
    assert again.status is Status.TRACKED
    assert again.keyframe_index == 10


def test_each_image_is_encoded_once_and_references_only_where_they_differ(world: World) -> None:
    plain = PointMatcher(world, SIDEWAYS)
    run(Tracker(plain), SIDEWAYS)
    assert plain.encode_calls == list(range(len(SIDEWAYS)))
    assert plain.reference_calls == []

    special = PointMatcher(world, SIDEWAYS)
    special.reference_encoding_differs = True
    results = run(Tracker(special), SIDEWAYS)
    assert special.encode_calls == list(range(len(SIDEWAYS)))
    assert special.reference_calls == [r.index for r in results if r.is_keyframe]


def test_memory_is_bounded(world: World) -> None:
    path = through([(0, look(-1.5, 0, 0)), (40, look(1.0, 0, 1.0, 10))])
    tracker = Tracker(PointMatcher(world, path), TrackerConfig(max_keyframes=4, keyframe_parallax_deg=2.0))
    results = run(tracker, path)
    assert len({r.keyframe_id for r in results}) > 6
    assert len(tracker.keyframes) == 4


def test_two_runs_are_identical(world: World) -> None:
    first, second = (run(Tracker(PointMatcher(world, SIDEWAYS)), SIDEWAYS) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a.status, a.reason, a.keyframe_id, a.num_inliers) == (b.status, b.reason, b.keyframe_id, b.num_inliers)
        np.testing.assert_array_equal(a.T_world_from_camera, b.T_world_from_camera)


def test_a_clock_that_is_set_back_begins_a_segment_with_a_number_of_its_own(world: World) -> None:
    tracker = RestartingTracker(Tracker(PointMatcher(world, SIDEWAYS)))
    stamps = [100, 200, 300, 400, 150, 250, 350, 90, 190]
    results = [tracker.process(Frame(image_of(i), stamp * 10**6, i, camera=CAMERA)) for i, stamp in enumerate(stamps)]
    assert [r.segment for r in results] == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    begun = [r.index for r in results if r.status is Status.INITIALISED]
    assert begun == [0, 4, 7]


def test_reset_begins_anew(world: World) -> None:
    tracker = Tracker(PointMatcher(world, SIDEWAYS))
    run(tracker, SIDEWAYS[:6])
    tracker.reset()
    again = run(tracker, SIDEWAYS[:1])[0]
    assert again.status is Status.INITIALISED
    assert len(tracker.keyframes) == 1


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="max_keyframes"):
        TrackerConfig(max_keyframes=0)
    with pytest.raises(ValueError, match="keyframes_max"):
        TrackerConfig(keyframes_max=3)  # type: ignore[call-arg]


def test_distorted_camera_tracks_like_a_plain_one(world: World) -> None:
    lens = Camera(640, 480, CAMERA.K, "plumb_bob", np.array([-0.2, 0.05, 0.001, -0.001, 0.0]))

    class Lens(PointMatcher):
        def _encode(self, image, *, reference, mask):  # type: ignore[no-untyped-def]
            number, ids, xy = super()._encode(image, reference=reference, mask=mask)
            rays = np.column_stack([CAMERA.normalise(xy), np.ones(len(xy))])
            return number, ids, lens.project(rays)

    results = run(Tracker(Lens(world, SIDEWAYS)), SIDEWAYS, camera=lambda i: lens)
    assert results[-1].scale is Scale.UNIT
    assert similarity_error(results, SIDEWAYS)[0] < 0.01


class BlurringMatcher(PointMatcher):
    """From image 6 on each is more blurred than the one before; the more two differ, the fewer matches they share."""

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        matches = super()._match(reference, query, max_matches=max_matches, seed=seed)
        blur = [max(encoding.data[0] - 5, 0) for encoding in (reference, query)]
        kept = (10, 6, 3, 1)[min(abs(blur[1] - blur[0]), 3)]
        return matches.select(np.arange(len(matches)) % 10 < kept)


def test_a_blurred_frame_is_matched_with_its_blurred_predecessor(world: World) -> None:
    results = run(Tracker(BlurringMatcher(world, SIDEWAYS)), SIDEWAYS, depth=lambda i: depth_of(world, SIDEWAYS[i]))
    assert "frame 6 became a keyframe first" in results[7].reason
    assert results[7].keyframe_index == 6
    assert results[7].num_inliers > 0.5 * results[5].num_inliers, "three tenths with the keyframe of before"
    for result in results[6:]:
        expected = poses.inverse(SIDEWAYS[0]) @ SIDEWAYS[result.index]
        assert np.linalg.norm(result.T_world_from_camera[:3, 3] - expected[:3, 3]) < 0.02
