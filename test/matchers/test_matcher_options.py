"""Every option of a matcher has a range, a full sentence, and one name everywhere: `gcm.min_score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.options import configured, settings_of
from ros2_densematch.configuration import Configuration, configuration_from, option_names, read_configuration, values_of
from ros2_densematch.live import parameters
from ros2_densematch.matchers.config import MatcherConfig, chosen_config, option_fields
from ros2_densematch.matchers.gcm.config import PRESETS
from ros2_densematch.matchers.registry import list_matchers, load_matcher, presets_of


@pytest.mark.parametrize("name", list_matchers())
def test_every_option_is_described_in_a_sentence_and_every_number_has_a_range(name: str) -> None:
    presets = presets_of(name)
    assert "base" in presets
    for option, info, value in option_fields(presets["base"]):
        text = info.description or ""
        assert text[:1].isupper(), (option, text)
        assert text.endswith("."), (option, text)
        assert len(text.split()) >= 4, (option, text)
        if type(value) in (int, float):
            limits = {k for limit in info.metadata for k in ("ge", "gt", "le", "lt") if hasattr(limit, k)}
            assert limits & {"ge", "gt"}, option
            assert limits & {"le", "lt"}, option


@pytest.mark.parametrize("name", list_matchers())
def test_a_configuration_is_frozen(name: str) -> None:
    config = presets_of(name)["base"]
    assert isinstance(config, MatcherConfig)
    for option in type(config).model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(config, option, getattr(config, option))


def test_the_presets_beside_a_matcher_are_its_own() -> None:
    for name in ("gcm", "condl", "sift"):
        assert type(load_matcher(name, device="cpu", weights="random")).PRESETS is presets_of(name)


def test_python_sets_an_option_over_the_preset() -> None:
    matcher = load_matcher("gcm", device="cpu", weights="random", preset="turbo", min_score=0.2)
    assert matcher.config == PRESETS["turbo"].model_copy(update={"min_score": 0.2})
    assert matcher.preset == "turbo"
    assert load_matcher("gcm", device="cpu", weights="random", min_score=None).config.min_score == 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_score": 2.0}, r"gcm\.min_score = 2\.0: input should be less than or equal to 1"),
        ({"min_scores": 0.2}, r"unknown option 'min_scores' of gcm: did you mean 'min_score'\?"),
        ({"keypoints": "many"}, r"gcm\.keypoints = 'many': input should be a valid integer"),
    ],
)
def test_wrong_options_are_refused_by_name_value_and_remedy(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_matcher("gcm", device="cpu", weights="random", **options)


def test_nested_options_have_dotted_names() -> None:
    config: Any = chosen_config("dkm", presets_of("dkm"), "turbo", {"sampling.threshold": 0.2, "direction": "both"})
    assert (config.sampling.threshold, config.direction, config.coarse_size) == (0.2, "both", (384, 512))
    assert not any(isinstance(value, BaseModel) for _, _, value in option_fields(config))
    assert "dkm.sampling.threshold" in option_names()


@pytest.mark.parametrize(
    "text",
    [
        "gcm: {min_score: 0.2}\n",
        "gcm.min_score: 0.2\n",
        "/**:\n  ros__parameters:\n    gcm:\n      min_score: 0.2\n",
    ],
)
def test_a_file_sets_an_option(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text, "utf-8")
    found = read_configuration(path)
    assert found.options == {"gcm": {"min_score": 0.2}}
    assert configuration_from(values_of(found)) == found


def test_only_what_differs_from_the_preset_is_kept_so_that_the_rest_follows_it() -> None:
    turbo = {"preset": "turbo", "gcm.max_pixels": 80_000}
    assert configuration_from(turbo).options == {"gcm": {}}
    # the base preset's value is an option of its own where the preset is another
    assert configuration_from({**turbo, "gcm.max_pixels": 500_000}).options == {"gcm": {"max_pixels": 500_000}}


def test_an_unknown_option_of_a_file_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"the file: unknown option 'min_scor' of gcm: did you mean 'min_score'"):
        configuration_from({"gcm.min_scor": 0.2}, "the file")
    with pytest.raises(ValueError, match=r"unknown parameter 'gmc.min_score': did you mean 'gcm.min_score'"):
        configuration_from({"gmc.min_score": 0.2})


def test_the_command_line_sets_options_and_parameters() -> None:
    found = configured(None, None, None, None, None, ["gcm.min_score=0.2", "tracker.min_inliers=33"])
    assert found.options["gcm"] == {"min_score": 0.2}
    assert found.tracker.min_inliers == 33
    dkm = configured(None, "dkm", None, "cpu", None, ["dkm.coarse_size=[96, 128]", "dkm.upsample_size=null"])
    assert dkm.options["dkm"] == {"coarse_size": (96, 128), "upsample_size": None}
    assert settings_of(["weights="]) == {"weights": ""}


@pytest.mark.parametrize("assignment", ["gcm.min_score", "=3", "gcm.min_score=[1"])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(InputError, match="--set"):
        settings_of([assignment])


def test_every_option_is_a_ros_parameter_with_its_range() -> None:
    declared = {p.name: p for p in parameters.declared()}
    assert set(option_names()) <= set(declared)
    score = declared["gcm.min_score"]
    assert (score.kind, score.default, score.low, score.high) == ("double", 0.1, 0.0, 1.0)
    assert declared["condl.detector"].choices == ("grid", "sift")
    assert (declared["dkm.coarse_size"].kind, declared["dkm.coarse_size"].default) == ("string", "[540, 720]")
    turbo = {p.name: p for p in parameters.declared(Configuration(preset="turbo"))}
    assert turbo["gcm.max_pixels"].default == 80_000


def test_an_option_changes_while_the_node_runs_and_what_is_not_set_follows_the_preset() -> None:
    changed = parameters.checked(Configuration(), {"gcm.min_score": 0.2})
    assert changed.options == {"gcm": {"min_score": 0.2}}
    faster = parameters.checked(changed, {"preset": "turbo"})
    assert faster.options["gcm"] == {"min_score": 0.2}
    with pytest.raises(ValueError, match=r"parameter: gcm\.min_score = 3\.0: input should be less than or equal to 1"):
        parameters.checked(changed, {"gcm.min_score": 3.0})
    sized = parameters.checked(Configuration(matcher="dkm"), {"dkm.coarse_size": "[96, 128]"})
    assert sized.options == {"dkm": {"coarse_size": (96, 128)}}


def test_declared_values_of_a_preset_are_no_options() -> None:
    """What a node reads back of its parameters is the configuration that it was started with."""
    for configuration in (Configuration(), Configuration(matcher="dkm", preset="turbo")):
        values = {p.name: p.default for p in parameters.declared(configuration)}
        assert not any(configuration_from(values).options.values())


def test_the_shipped_file_names_the_options_of_the_default_matcher(repository: Path) -> None:
    lines = (repository / "config" / "matcher.yaml").read_text("utf-8").splitlines()
    commented = [line.partition("#")[2][1:] for line in lines if line.startswith("    # ")]
    start = commented.index("gcm:")
    options = yaml.safe_load("\n".join(commented[start:]))["gcm"]
    assert options == {name: value for name, _, value in option_fields(PRESETS["base"])}
