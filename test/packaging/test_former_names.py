"""A name that was changed works for one more version, and a warning gives the new one."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch import DenseWarp, load_matcher
from ros2_densematch.configuration import configuration_from
from ros2_densematch.deprecation import current_name, former_name, renamed
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.training.data.pseudo_labels import TeacherConfig


def test_a_former_option_of_a_matcher_sets_the_present_one() -> None:
    with pytest.warns(FutureWarning, match="'least_score' is now called 'min_score'"):
        matcher = load_matcher("gcm", device="cpu", weights="random", preset="turbo", least_score=0.2)
    assert matcher.config.min_score == 0.2


def test_a_former_name_in_a_parameter_file_sets_the_present_parameter() -> None:
    with pytest.warns(FutureWarning, match="'least_confirmed' is now called 'min_confirmed'"):
        found = configuration_from({"gcm.least_confirmed": 30})
    assert found.options == {"gcm": {"min_confirmed": 30}}


def test_a_former_field_of_a_recipe_sets_the_present_one() -> None:
    with pytest.warns(FutureWarning, match="'least_score' is now called 'min_score'"):
        assert TeacherConfig(matcher="gcm", least_score=0.7).min_score == 0.7  # type: ignore[call-arg]


def test_a_former_argument_is_passed_on_under_its_present_name() -> None:
    grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(6.0)), -1).astype(np.float32)
    warp = DenseWarp(grid, np.full((6, 8), 0.3, np.float32), (8, 6), (8, 6))
    at = [[3.0, 2.0]]
    with pytest.warns(FutureWarning, match="'least_certainty' is now called 'min_certainty'"):
        assert len(Prior.from_warp(at, warp, least_certainty=0.5)) == 0  # type: ignore[call-arg]
    assert len(Prior.from_warp(at, warp, min_certainty=0.2)) == 1


def test_a_name_that_was_never_known_stays_unknown() -> None:
    assert current_name("least_fun", ["min_score"], "the option") == "least_fun"
    with pytest.raises(ValueError, match="unknown option 'least_fun' of gcm"):
        load_matcher("gcm", device="cpu", weights="random", least_fun=1)


def test_the_former_name_of_a_parameter_keeps_its_groups() -> None:
    assert former_name("gcm.min_score") == "gcm.least_score"
    assert former_name("tracker.enabled") is None


def test_both_names_of_an_argument_cannot_be_given() -> None:
    @renamed(old="new")
    def call(*, new: int) -> int:
        return new

    with pytest.raises(TypeError, match="both"):
        call(old=1, new=2)  # type: ignore[call-arg]
