"""`odom` never jumps and `map` is corrected (REP 105); the covariance says what is known after every gap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.intrinsics import EXACT, IntrinsicUncertainty
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale
from ros2_densematch.io.results.odometry import (
    NOISE_FACTOR,
    T_BODY_FROM_OPTICAL,
    UNKNOWN_VARIANCE,
    MetricState,
    OdometryChain,
    of_base,
    unseen_motion,
)
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

Pose = np.ndarray[Any, Any]
STEP_NS = 100_000_000
NOISE = np.diag([1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3]) ** 2


def at(x: float, yaw_deg: float = 0.0) -> Pose:
    return poses.make_pose(poses.exp_rotation([0, np.radians(yaw_deg), 0]), [x, 0.0, 0.0])


def frame(
    index: int,
    T: Pose | None,
    *,
    keyframe: int = 0,
    T_keyframe: Pose | None = None,
    status: Status = Status.TRACKED,
    keyframe_id: int | None = None,
    stamp_ns: int | None = None,
    scale_std: float = float("nan"),
    calibration: IntrinsicUncertainty = EXACT,
    segment: int = 0,
) -> TrackedFrame:
    """A frame at T that hangs on that of number `keyframe` at T_keyframe, or on itself; lost where T is None."""
    pose = between = None
    if T is not None and T_keyframe is not None:
        between = poses.compose(poses.inverse(T), T_keyframe)
        pose = RelativePose(
            between,
            Geometry.CALIBRATED,
            Scale.METRIC,
            0.01,
            NOISE,
            np.ones(30, np.bool_),
            30,
            30,
            1.0,
            0.3,
            2.0,
            0.4,
            "",
        )
    return TrackedFrame(
        index,
        stamp_ns if stamp_ns is not None else (index + 1) * STEP_NS,
        status if T is not None else Status.LOST,
        "as the test says",
        keyframe if keyframe_id is None else keyframe_id,
        keyframe if T_keyframe is not None else index,
        relative_pose=pose,
        T_world_from_camera=T,
        T_frame_from_keyframe=between,
        scale=Scale.METRIC if T is not None else Scale.NONE,
        scale_std=scale_std,
        pose_noise=NOISE / NOISE_FACTOR if pose is not None else None,
        calibration=calibration,
        segment=segment,
    )


def state_of(chain: OdometryChain, tracked: TrackedFrame, odometry: Pose | None = None) -> MetricState:
    state = chain.add(tracked, odometry)
    assert state is not None
    return state


def begun() -> OdometryChain:
    """A chain that has moved by 0.1 m an image along x, for three images."""
    chain = OdometryChain()
    chain.add(frame(0, at(0.0)))
    for i in (1, 2):
        chain.add(frame(i, at(0.1 * i), T_keyframe=at(0.0)))
    return chain


def std_x(covariance: Pose) -> float:
    return float(np.sqrt(covariance[0, 0]))


# --- odom -------------------------------------------------------------------------------------------------------------


def test_while_tracking_goes_on_odom_is_the_trackers_world() -> None:
    state = state_of(begun(), frame(3, at(0.3, 5.0), T_keyframe=at(0.0)))
    np.testing.assert_allclose(state.T_world_from_camera, at(0.3, 5.0), atol=1e-12)
    np.testing.assert_allclose(state.T_map_from_odom, np.eye(4), atol=1e-12)


def test_after_a_loss_odom_goes_on_from_the_last_pose_and_the_map_is_corrected() -> None:
    chain = begun()
    assert chain.add(frame(3, None)) is None
    found = state_of(chain, frame(4, at(0.7), T_keyframe=at(0.0), status=Status.RELOCALISED))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.2), atol=1e-12)
    np.testing.assert_allclose(found.T_map_from_camera, at(0.7), atol=1e-12)
    after = state_of(chain, frame(5, at(0.8), T_keyframe=at(0.0)))
    np.testing.assert_allclose(after.T_world_from_camera, at(0.3), atol=1e-12)  # it moves on with the tracker


def test_after_a_loss_other_odometry_says_how_far_it_went() -> None:
    chain = OdometryChain()
    chain.add(frame(0, at(0.0)), at(10.0))
    chain.add(frame(1, None), at(10.2))
    found = state_of(chain, frame(2, at(0.55), T_keyframe=at(0.0), status=Status.RELOCALISED), at(10.5))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.5), atol=1e-12)
    assert std_x(found.covariance) < 0.04  # 5 % of half a metre, and a little


def test_after_a_reset_odom_goes_on_and_the_map_has_no_correction() -> None:
    chain = begun()
    chain.forget_worlds()
    found = state_of(chain, frame(3, at(0.0), status=Status.INITIALISED))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.2), atol=1e-12)
    np.testing.assert_allclose(found.T_map_from_odom, np.eye(4), atol=1e-12)


def test_a_return_to_an_older_keyframe_does_not_move_odom() -> None:
    chain = begun()
    state_of(chain, frame(3, at(0.3), keyframe=2, T_keyframe=at(0.2)))
    found = state_of(chain, frame(4, at(0.9), keyframe=0, T_keyframe=at(0.0)))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.3), atol=1e-12)
    np.testing.assert_allclose(found.T_map_from_camera, at(0.9), atol=1e-12)


def test_a_new_segment_goes_on_in_odom_and_corrects_nothing() -> None:
    chain = begun()
    chain.add(frame(3, None))
    found = state_of(chain, frame(4, at(5.0), keyframe=3, keyframe_id=1, segment=1))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.2), atol=1e-12)
    np.testing.assert_allclose(found.T_map_from_odom, np.eye(4), atol=1e-12)
    back = state_of(chain, frame(5, at(0.3), T_keyframe=at(0.0), status=Status.RELOCALISED))
    np.testing.assert_allclose(back.T_map_from_camera, at(0.3), atol=1e-12)  # the old segment lies where it lay


def test_the_initial_pose_moves_the_map_alone() -> None:
    chain = begun()
    assert chain.move_map(at(7.0))
    found = state_of(chain, frame(3, at(0.3), T_keyframe=at(0.0)))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.3), atol=1e-12)
    np.testing.assert_allclose(found.T_map_from_camera, at(7.1), atol=1e-12)
    assert not OdometryChain().move_map(at(7.0))


def test_poses_without_a_base_have_x_forward_and_z_up() -> None:
    """The camera goes 1 m along its axis, 2 m to its right and 3 m down."""
    T = poses.make_pose(np.eye(3), [2.0, 3.0, 1.0])
    chain = OdometryChain()
    chain.add(frame(0, at(0.0)))
    state = of_base(state_of(chain, frame(1, T, T_keyframe=at(0.0))), np.eye(4), T_BODY_FROM_OPTICAL)
    np.testing.assert_allclose(state.T_world_from_camera[:3, 3], [1.0, -2.0, -3.0], atol=1e-12)


# --- covariance -------------------------------------------------------------------------------------------------------


def test_the_covariance_grows_along_the_chain_of_keyframes_also_of_those_made_a_frame_late() -> None:
    """Every frame hangs on the frame before it, which became a keyframe when this one came."""
    chain, variances = OdometryChain(), []
    chain.add(frame(0, at(0.0)))
    for i in range(1, 17):
        state = state_of(chain, frame(i, at(0.1 * i), keyframe=i - 1, T_keyframe=at(0.1 * (i - 1))))
        variances.append(state.covariance[0, 0])
    np.testing.assert_allclose(variances, 1e-6 * np.arange(1, 17), rtol=1e-9)


def test_an_error_of_the_metre_grows_with_the_distance_and_not_with_its_root() -> None:
    chain = OdometryChain()
    chain.add(frame(0, at(0.0), scale_std=0.02))
    for i in range(1, 101):
        last = state_of(chain, frame(i, at(0.3 * i), keyframe=i - 1, T_keyframe=at(0.3 * (i - 1)), scale_std=0.02))
    assert std_x(last.covariance) == pytest.approx(0.02 * 30.0, rel=0.01)
    assert np.sqrt(last.covariance[1, 1]) < 0.05 * std_x(last.covariance) + 0.6  # along the way only


def test_an_error_of_the_calibration_grows_with_the_turning_and_cancels_on_the_way_back() -> None:
    """A focal length that is wrong by 1 % makes every turn wrong by 1 %, in one direction as in the other."""
    known, chain = IntrinsicUncertainty(focal=0.01, principal_point=0.0), OdometryChain()
    chain.add(frame(0, at(0.0), calibration=known))
    there = [*range(5, 65, 5), *range(55, -5, -5)]
    states = [
        state_of(chain, frame(i, at(0.0, float(yaw)), T_keyframe=at(0.0), calibration=known))
        for i, yaw in enumerate(there, 1)
    ]
    yaw_std = np.sqrt([state.covariance[4, 4] for state in states])
    assert yaw_std[11] == pytest.approx(2 * yaw_std[5], rel=0.05)  # after 60 degrees and after 30
    assert yaw_std[11] >= 0.01 * np.radians(60)
    assert yaw_std[-1] == pytest.approx(1e-3, rel=0.05)  # the noise of one link is left


def test_a_wrong_calibration_makes_motion_of_turns_the_more_the_farther_the_scene_is() -> None:
    """It shifts what is seen of a turn, and that looks like a motion past far points."""
    known = IntrinsicUncertainty(focal=0.01, principal_point=0.01)
    stds = []
    for depth in (1.0, 4.0):
        noise = np.diag([depth * 1e-6] * 3 + [1e-6] * 3) ** 2  # next to nothing: what is left is shared
        chain = OdometryChain()
        chain.add(frame(0, at(0.0), calibration=known))
        for i in range(1, 13):
            hung = frame(i, at(0.0, 5.0 * i), T_keyframe=at(0.0), calibration=known)
            state = state_of(chain, replace(hung, pose_noise=noise))
        stds.append(std_x(state.covariance))
        assert std_x(state.covariance) > 0.1 * 0.01 * depth * np.radians(60)
    assert stds[1] == pytest.approx(4 * stds[0], rel=0.01)


def test_the_twist_holds_the_errors_of_metre_and_calibration_which_grow_with_the_speed() -> None:
    """At 2 m/s a metre that is wrong by 2 % makes 4 cm/s, however well the two poses are known."""
    known = IntrinsicUncertainty(focal=0.01, principal_point=0.0)
    chain, slow_chain = OdometryChain(), OdometryChain()
    for each in (chain, slow_chain):
        each.add(frame(0, at(0.0), scale_std=0.02, calibration=known))
    for i in range(1, 4):
        moved = [at(0.2 * i, 6.0 * i), at(0.02 * i, 0.6 * i)]
        fast, slow = (
            state_of(
                each,
                replace(
                    frame(i, T, T_keyframe=at(0.0), scale_std=0.02, calibration=known), pose_noise=1e-12 * np.eye(6)
                ),
            )
            for each, T in zip((chain, slow_chain), moved, strict=True)
        )
    linear, angular = np.sqrt(np.diag(fast.velocity_covariance)).reshape(2, 3)
    assert np.linalg.norm(linear) == pytest.approx(0.02 * 2.0, rel=0.2)
    assert angular[1] >= 0.01 * np.radians(60.0)
    assert np.linalg.norm(np.sqrt(np.diag(slow.velocity_covariance))[:3]) < 0.15 * np.linalg.norm(linear)


def test_the_noise_of_the_twist_is_less_than_that_of_two_poses_which_see_the_same_points() -> None:
    state = state_of(begun(), frame(3, at(0.3), T_keyframe=at(0.0)))
    apart = np.sqrt(2) * 1e-3 / (STEP_NS * 1e-9)  # of two links whose noise is all their own
    assert 0.3 * apart < np.sqrt(state.velocity_covariance[0, 0]) < 0.8 * apart


def test_the_error_of_a_turn_grows_with_the_lever() -> None:
    chain = OdometryChain()
    chain.add(frame(0, at(0.0)))
    state_of(chain, frame(1, at(0.1), T_keyframe=at(0.0)))
    far = state_of(chain, frame(2, at(10.1), keyframe=1, T_keyframe=at(0.1)))
    assert np.sqrt(far.covariance[1, 1]) == pytest.approx(1e-3 * 10.0 * np.sqrt(2), rel=0.1)  # of both links


def test_after_a_gap_the_covariance_holds_what_an_unseen_camera_may_have_done() -> None:
    chain = begun()
    before = std_x(state_of(chain, frame(3, at(0.3), T_keyframe=at(0.0))).covariance)
    chain.add(frame(4, None))
    found = state_of(chain, frame(8, at(0.7), T_keyframe=at(0.0), status=Status.RELOCALISED))
    assert std_x(found.covariance) > before
    assert std_x(found.covariance) >= 0.4  # it went on at 1 m/s for half a second
    assert std_x(found.map_covariance) < 0.01  # in the map it is known again
    assert found.velocity_covariance[0, 0] == UNKNOWN_VARIANCE
    assert not found.apart
    grown = unseen_motion([1.0, 0, 0, 0, 0, 0], 0.5)
    assert grown[0, 0] > grown[1, 1] > 0


def test_where_nothing_is_known_any_more_one_message_says_so_and_a_new_odometry_begins() -> None:
    """RTAB-Map begins a new map on 9999 in pose and twist."""
    chain = begun()
    chain.forget_worlds()
    found = state_of(chain, frame(3, at(0.0), status=Status.INITIALISED, stamp_ns=60 * 10**9))
    assert found.apart
    np.testing.assert_array_equal(np.diag(found.covariance), np.full(6, UNKNOWN_VARIANCE))
    np.testing.assert_array_equal(np.diag(found.velocity_covariance), np.full(6, UNKNOWN_VARIANCE))
    np.testing.assert_allclose(found.T_world_from_camera, at(0.2), atol=1e-12)
    carried = of_base(found, at(1.0, 30.0))
    np.testing.assert_array_equal(np.diag(carried.covariance), np.full(6, UNKNOWN_VARIANCE))
    np.testing.assert_array_equal(np.diag(carried.velocity_covariance), np.full(6, UNKNOWN_VARIANCE))
    after = state_of(chain, frame(4, at(0.1), keyframe=3, T_keyframe=at(0.0), stamp_ns=60 * 10**9 + STEP_NS))
    assert not after.apart
    assert std_x(after.covariance) < 0.01


def test_a_clock_that_was_set_back_is_a_gap_of_unknown_length() -> None:
    chain = begun()
    chain.forget_worlds()
    assert state_of(chain, frame(3, at(0.0), status=Status.INITIALISED, stamp_ns=1)).apart


# --- an arbitrary unit ------------------------------------------------------------------------------------------------


def in_a_unit(tracked: TrackedFrame, drift: float = 0.0) -> TrackedFrame:
    return replace(tracked, scale=Scale.UNIT, unit_drift=drift)


def unscaled_state(chain: OdometryChain, tracked: TrackedFrame) -> MetricState:
    state = chain.add(tracked, unscaled=True)
    assert state is not None
    return state


def bent_path(drift: float) -> MetricState:
    """One keyframe an image: ten along x, then ten along y; exact but for the unit, which may drift."""
    chain = OdometryChain()
    chain.add(in_a_unit(frame(0, np.eye(4)), drift), unscaled=True)
    T = np.eye(4)
    for i in range(1, 21):
        T_next = T.copy()
        T_next[:3, 3] += [0.1, 0, 0] if i <= 10 else [0, 0.1, 0]
        hung = frame(i, T_next, keyframe=i - 1, T_keyframe=T)
        hung = replace(hung, pose_noise=1e-14 * np.eye(6), is_keyframe=True)
        state, T = unscaled_state(chain, in_a_unit(hung, drift)), T_next
    return state


def test_in_an_arbitrary_unit_there_is_odometry_only_where_it_is_wanted() -> None:
    chain = OdometryChain()
    assert chain.add(in_a_unit(frame(0, at(0.0)))) is None
    assert chain.add(in_a_unit(frame(1, at(0.1), T_keyframe=at(0.0))), unscaled=True) is not None


def test_in_an_arbitrary_unit_five_degrees_of_freedom_are_known() -> None:
    """The length of the position and of the velocity is not known, what lies across them is."""
    chain = OdometryChain()
    chain.add(in_a_unit(frame(0, at(0.0))), unscaled=True)
    for i in (1, 2, 3):
        state = unscaled_state(chain, in_a_unit(frame(i, at(0.1 * i), T_keyframe=at(0.0))))
    assert std_x(state.covariance) > 10.0 * 0.3
    assert std_x(state.map_covariance) > 10.0 * 0.3
    assert np.sqrt(state.covariance[1, 1]) < 0.01
    assert np.sqrt(state.velocity_covariance[0, 0]) > 10.0 * 1.0
    assert np.sqrt(state.velocity_covariance[1, 1]) < 0.1
    assert np.diag(state.covariance).max() < UNKNOWN_VARIANCE  # that would be a new map to RTAB-Map
    assert np.linalg.eigvalsh(state.covariance)[0] > 0


def test_the_unit_drifts_along_the_chain_and_bends_the_path() -> None:
    """Ten steps by a unit that drifts are longer or shorter than ten earlier ones: the direction to the end is off."""
    states = [bent_path(drift) for drift in (0.0, 0.02, 0.04)]
    across = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)  # at right angles to the way from the start
    stds = [float(np.sqrt(across @ state.covariance[:3, :3] @ across)) for state in states]
    # By the second leg the unit is off by 2 % times the root of the keyframes, 10 to 20, against 0 to 10 on the first
    # one: the difference of the legs' errors, each one unit long, is that times the root of about 10 * 2 / 3.
    assert stds[0] < 1e-3
    assert stds[1] == pytest.approx(0.02 * np.sqrt(20 / 3) / np.sqrt(2), rel=0.15)
    assert stds[2] == pytest.approx(2 * stds[1], rel=0.01)


def test_before_the_first_length_the_held_position_may_be_wrong() -> None:
    """The camera turns for two keyframes before it moves enough: where the second one is, nobody saw."""
    chain = OdometryChain()
    chain.add(replace(frame(0, at(0.0)), scale=Scale.NONE, is_keyframe=True), unscaled=True)
    turned = replace(frame(1, at(0.0, 20.0), T_keyframe=at(0.0)), scale=Scale.NONE, is_keyframe=True)
    assert chain.add(turned, unscaled=True) is None
    state = unscaled_state(
        chain, in_a_unit(frame(2, at(0.1, 20.0), keyframe=1, keyframe_id=1, T_keyframe=at(0.0, 20.0)))
    )
    assert np.sqrt(state.covariance[1, 1]) > 0.01


def test_where_the_camera_was_lost_before_the_first_length_the_odometry_begins_after_it() -> None:
    chain = OdometryChain()
    chain.add(replace(frame(0, at(0.0)), scale=Scale.NONE, is_keyframe=True), unscaled=True)
    assert chain.add(frame(1, None), unscaled=True) is None
    chain.add(replace(frame(2, at(0.0), status=Status.NEW_KEYFRAME, segment=1), scale=Scale.NONE), unscaled=True)
    first = unscaled_state(chain, in_a_unit(frame(3, at(0.1), keyframe=2, T_keyframe=at(0.0), segment=1)))
    assert first.apart
    assert first.covariance[0, 0] == UNKNOWN_VARIANCE
    after = unscaled_state(chain, in_a_unit(frame(4, at(0.2), keyframe=2, T_keyframe=at(0.0), segment=1)))
    assert not after.apart
    assert np.sqrt(after.covariance[1, 1]) < 0.01


def test_a_new_segment_has_another_arbitrary_unit() -> None:
    chain = OdometryChain()
    chain.add(in_a_unit(frame(0, at(0.0))), unscaled=True)
    chain.add(in_a_unit(frame(1, at(0.3), T_keyframe=at(0.0))), unscaled=True)
    begun_again = frame(2, at(0.0), keyframe=2, status=Status.NEW_KEYFRAME, segment=1)
    chain.add(in_a_unit(begun_again), unscaled=True)
    T = poses.make_pose(np.eye(3), [0.0, 0.2, 0.0])
    state = unscaled_state(chain, in_a_unit(frame(3, T, keyframe=2, T_keyframe=at(0.0), segment=1)))
    across = np.array([2.0, -3.0, 0.0]) / np.sqrt(13)
    assert np.sqrt(across @ state.covariance[:3, :3] @ across) > 0.1  # 0.2 units that are as long as the others, or not
