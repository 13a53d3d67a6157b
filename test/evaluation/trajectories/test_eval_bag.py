"""`densematch eval bag`: matchers on a recording without true poses, under a heading that says what that is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.cli.main import main
from ros2_densematch.evaluation.trajectories.consistency import carried, consistency
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.io.sources.fixes import east_north_up, read_fixes
from ros2_densematch.matchers.base import Encoding, Matcher
from ros2_densematch.messages.typestore import ros2_typestore
from ros2_densematch.simulation.bag import write_flight_bag
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("own")
    flight = demo_flight()
    part = replace(flight, stamps_ns=flight.stamps_ns[:6], T_world_from_camera=flight.T_world_from_camera[:6])
    write_flight_bag(folder / "run", workshop(), demo_camera(160, 120), part, Sensor())
    words = ["eval", "bag", str(folder / "run"), "sift", "opencv-orb", "--triples", "2"]
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *text, **_: said.append(" ".join(map(str, text))))
        code = main([*words, "--odometry-topic", "/ground_truth/pose", "--out", str(folder / "out")])
    assert code == 0, said
    return folder / "out", "\n".join(said)


def test_page_report_and_terminal_say_first_that_these_are_no_accuracies(result: tuple[Path, str]) -> None:
    out, said = result
    page = (out / "report.html").read_text()
    assert "<h1>Not accuracies: comparison without ground truth: run</h1>" in page
    assert (out / "report.md").read_text().startswith("# Not accuracies, without true poses: run\n")
    for text in (page, (out / "report.md").read_text(), said):
        assert "these are not accuracies" in text


def test_consistency_losses_survival_and_agreement_of_each_matcher(result: tuple[Path, str]) -> None:
    content = json.loads((result[0] / "scores.json").read_text())
    assert [entry["name"] for entry in content["entries"]] == ["sift", "opencv-orb"]
    sift = {key: {k: f["value"] for k, f in g["figures"].items()} for key, g in content["entries"][0]["groups"].items()}
    assert sift["tracking"]["with_pose"] == 100
    assert sift["tracking"]["lost"] == 0
    assert sift["tracking"]["survival"] == 5  # one keyframe, five frames
    assert sift["consistency"]["back_3"] > 90
    assert sift["consistency"]["third_3"] > 50
    assert 0 < sift["odometry"]["rms_percent"] < 40  # six small frames
    assert "The tracker did not use it" in content["entries"][0]["groups"]["odometry"]["note"]


class Shifting(Matcher):
    """Matches a grid; the image's first pixel says where it lies, and `wrong` is added to every second match."""

    name = "shifting"

    def __init__(self, wrong: float):
        self._wrong = wrong

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> Any:
        return float(image.flat[0])

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        x, y = (v.ravel().astype(np.float32) for v in np.meshgrid(np.arange(20, 80, 4), np.arange(20, 80, 4)))
        xy = np.stack([x, y], 1)
        there = xy + np.float32([query.data - reference.data, 0])
        there[::2, 1] += self._wrong
        return Correspondences(xy, there, np.ones(len(xy), np.float32), 1.0, reference.size, query.size)


def images() -> list[Any]:
    return [np.full((100, 100), value, np.uint8) for value in (10, 12, 14)]


def test_right_matches_return_and_agree_over_three_views() -> None:
    found = consistency(Shifting(0.0), images())
    inside = np.isfinite(found.back_px)
    assert inside.mean() > 0.8  # some leave the grid that matches begin on
    assert found.back_px[inside].max() < 1e-4
    assert found.third_px[np.isfinite(found.third_px)].max() < 1e-4


def test_wrong_matches_do_not() -> None:
    found = consistency(Shifting(9.0), images())
    assert (found.back_px < 3).mean() < 0.6


def test_what_no_match_begins_near_is_not_carried_on() -> None:
    one = np.array([[10.0, 10.0]], np.float32)
    matches = Correspondences(one, one + 5, np.ones(1, np.float32), 1.0, (100, 100), (100, 100))
    there = carried(np.array([[11.0, 10.0], [50.0, 50.0]]), matches)
    assert there[0].tolist() == [16, 15]
    assert np.isnan(there[1]).all()


# ---- satellite fixes


def test_a_degree_east_and_north_at_the_equator() -> None:
    metres = east_north_up(np.array([[0.0, 10.0, 0.0], [0.0, 10.001, 0.0], [0.001, 10.0, 7.0]]))
    assert metres[0].tolist() == [0, 0, 0]
    assert metres[1] == pytest.approx([111.3195, 0, 0], abs=0.01)
    assert metres[2] == pytest.approx([0, 110.574, 7.0], abs=0.01)


def test_fixes_of_a_bag_without_those_that_are_none(tmp_path: Path) -> None:
    store = ros2_typestore()
    types = store.types
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/fix", "sensor_msgs/msg/NavSatFix", typestore=store)
        for i, (status, longitude) in enumerate([(0, 10.0), (-1, 0.0), (0, float("nan")), (0, 10.001)]):
            header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](100 + i, 0), "gps")
            fix = types["sensor_msgs/msg/NavSatFix"](
                header, types["sensor_msgs/msg/NavSatStatus"](status, 1), 0.0, longitude, 0.0, np.zeros(9), 0
            )
            writer.write(connection, (100 + i) * 10**9, store.serialize_cdr(fix, "sensor_msgs/msg/NavSatFix"))
    found = read_fixes(tmp_path / "bag")
    assert found is not None
    track = found.track
    assert track is not None
    assert found.topic == "/fix"
    assert found.left_out == "2 of 4 messages are left out: 1 without a fix, 1 not finite"
    assert (track.stamps_ns // 10**9).tolist() == [100, 103]
    assert track.positions[1, 0] == pytest.approx(111.32, abs=0.01)
    with pytest.raises(ValueError, match="no satellite fixes on /gps: /fix"):
        read_fixes(tmp_path / "bag", "/gps")
