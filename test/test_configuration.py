"""The one parameter file: read by ROS and by the offline commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ros2_densematch.configuration import (
    Configuration,
    configuration_from,
    defaults,
    parameter_file,
    parameter_names,
    read_configuration,
)


def written(folder: Path, text: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_shipped_file_holds_every_parameter_with_its_default(repository: Path) -> None:
    text = (repository / "config" / "matcher.yaml").read_text("utf-8")
    assert text == parameter_file(), "write it again: python -m ros2_densematch.configuration > config/matcher.yaml"
    assert yaml.safe_load(text)["/**"]["ros__parameters"] == defaults()
    assert read_configuration(repository / "config" / "matcher.yaml") == Configuration()


def test_an_empty_file_keeps_all_defaults(tmp_path: Path) -> None:
    assert read_configuration(written(tmp_path, "")) == Configuration()


@pytest.mark.parametrize(
    "text",
    [
        "/**:\n  ros__parameters:\n    tracker:\n      min_inliers: 33\n",
        "/**:\n  ros__parameters:\n    tracker.min_inliers: 33\n",
        "matcher:\n  ros__parameters:\n    tracker.min_inliers: 33\n",
        "/robot/front/matcher:\n  ros__parameters: {tracker: {min_inliers: 33}}\n",
        "tracker: {min_inliers: 33}\n",
        "tracker.min_inliers: 33\n",
    ],
)
def test_nested_dotted_and_node_sections_mean_the_same(tmp_path: Path, text: str) -> None:
    assert read_configuration(written(tmp_path, text)).tracker.min_inliers == 33


def test_a_section_for_the_node_overrules_the_one_for_all_nodes(tmp_path: Path) -> None:
    text = (
        "/matcher:\n  ros__parameters: {matcher: sift}\n/**:\n  ros__parameters: {matcher: gcm, preset: fast}\n"
        "/camera:\n  ros__parameters: {exposure: 3}\n"
    )
    found = read_configuration(written(tmp_path, text))
    assert (found.matcher, found.preset) == ("sift", "fast")


def test_settings_of_the_estimator_arrive(tmp_path: Path) -> None:
    found = read_configuration(written(tmp_path, "tracker: {pose: {max_epipolar_error_px: 2.5}}"))
    assert found.tracker.pose.max_epipolar_error_px == 2.5
    assert found.tracker.pose.min_inliers == defaults()["tracker"]["pose"]["min_inliers"]


def test_yaml_true_is_the_word_true(tmp_path: Path) -> None:
    assert read_configuration(written(tmp_path, "rectified: true")).rectified == "true"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tracker: {min_inlier: 20}", ["tracker.min_inlier", "did you mean 'tracker.min_inliers'"]),
        ("tracker: {pose: {max_eppipolar_error_px: 1}}", ["did you mean 'tracker.pose.max_epipolar_error_px'"]),
        ("tracker: {min_inliers: 3}", ["tracker.min_inliers = 3", "greater than or equal to 8"]),
        ("tracker: {pose: {min_inliers: 3}}", ["tracker.pose.min_inliers = 3", "greater than or equal to 8"]),
        ("device: gpu", ["device = 'gpu'"]),
        ("tracker: many", ["tracker", "unknown parameter"]),
        ("/camera:\n  ros__parameters: {a: 1}", ["/camera", "put those of this node"]),
        ("- 1\n- 2\n", ["instead of a mapping"]),
        ("a: [", ["not a YAML file"]),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"p\.yaml") as caught:
        read_configuration(written(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        read_configuration(tmp_path / "nowhere.yaml")


def test_every_name_is_taken_with_its_own_default() -> None:
    def value(name: str) -> object:
        level: object = defaults()
        for part in name.split("."):
            assert isinstance(level, dict)
            level = level[part]
        return level

    assert configuration_from({name: value(name) for name in parameter_names()}) == Configuration()
