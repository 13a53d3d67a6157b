"""`densematch inspect`: a table for people, JSON for programs, the same facts in both."""

from __future__ import annotations

import json
from typing import Any

import pytest


def facts(densematch: Any, *words: object) -> dict[str, Any]:
    done = densematch("inspect", *words, "--json")
    assert done.code == 0
    return json.loads(done.out)


@pytest.mark.parametrize("full", [True, False])
def test_rates_counts_and_damage_of_a_good_bag(densematch: Any, shared_data, full: bool) -> None:
    found = facts(densematch, shared_data.need("rosbag/tum_fr1_rpy_mcap"), *(["--full"] if full else []))
    image = next(t for t in found["topics"] if t["name"] == "/camera/rgb/image_raw/compressed")
    assert image["count"] == 150
    assert image["looked_at"] == (150 if full else 40)
    assert image["rate_hz"] == pytest.approx(31, abs=1)
    assert found["image_topic"] == image["name"]
    assert not found["damage"]
    (calibration,) = found["calibrations"]
    assert calibration["size"] == [640, 480]
    assert calibration["K"][0] == pytest.approx(517.3)
    assert not calibration["doubts"]


def test_an_outlier_a_doubtful_calibration_and_other_serialisations_are_named(densematch: Any, shared_cases) -> None:
    outlier = densematch("inspect", shared_cases.need("one_future_stamp/bag")).out
    assert "/cam/image_raw/compressed: 1 outlier; the first: message 2 at 1700003600.2" in outlier
    doubtful = densematch("inspect", shared_cases.need("binning_k_already_scaled/bag")).out
    assert "doubtful" in doubtful
    assert "principal point" in doubtful
    mixed = densematch("inspect", shared_cases.need("mcap_protobuf_beside_ros2/mixed.mcap")).out
    assert "foxglove.SceneUpdate (protobuf)" in mixed
    assert "no damage found" in mixed


def test_transforms_and_clock_offsets(densematch: Any, shared_cases) -> None:
    found = facts(densematch, shared_cases.need("ros1_tf_static/tf.bag"))
    assert found["transforms"] == ["base_link to cam"]
    odometry = next(t for t in found["topics"] if t["name"] == "/odom")
    assert odometry["clock_offset_s"] == pytest.approx(0)


def test_what_is_no_bag_is_refused(densematch: Any, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    for path, words in ((tmp_path / "notes.txt", "is not a bag"), (tmp_path / "none", "does not exist")):
        done = densematch("inspect", path)
        assert done.code == 2
        assert words in done.err
        assert done.err.count("\n") == 1
