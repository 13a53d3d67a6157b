"""What a user reads about a setting is a sentence that stands alone, and every number has a range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ros2_densematch.cli.main import COMMANDS, build_app
from ros2_densematch.configuration import Configuration, declared_fields, limits_of
from ros2_densematch.geometry.pose_config import PoseConfig
from ros2_densematch.live import parameters
from ros2_densematch.live.feature_tracks import TrackSettings
from ros2_densematch.live.reference import launch_parameters, tables
from ros2_densematch.live.topics import PUBLISHED, SERVICES, SUBSCRIBED
from ros2_densematch.matchers.config import option_fields
from ros2_densematch.matchers.registry import all_presets

# Finite verbs that the texts use: a description without any is a fragment. Add the verb of a new sentence.
VERBS = re.compile(
    r"\b(?:is|are|has|have|takes?|gives?|needs?|begins?|belongs?|comes?|says?|lies?|runs?|holds?|keeps?|kept|counts?|means?"
    r"|draws?|stops?|exceeds?|depends?|stays?|waits?|subscribes?|trades|explains|agree|decides|samples|moves|scores|adds"
    r"|calculates|starts|learns?|decays?|rises?|labels|falls?|teaches|differs?|overlap|grow|changes|stands|turns|divides|weighs"
    r"|estimates?|correlates?|configures|renders?|stand|makes?|enter|uses?|must|lists?|controls?|sets?|reaches|covers?|agrees?|share|accepts?|computes?|leaves)\b"
)
CROSS_REFERENCES = re.compile(
    r"\bsee\b|\blikewise\b|\bdito\b|\bditto\b|\bas above\b|\bsee there\b|\bibid", re.IGNORECASE
)


def faults(text: str) -> list[str]:
    """What keeps a text from being sentences that stand alone."""
    found = []
    if not re.match(r"[A-Z]", text):
        found.append("does not begin with a capital letter")
    if not text.endswith("."):
        found.append("does not end with a full stop")
    words = re.findall(r"[\w']+", text.lower())
    if len(words) < 5:
        found.append("is too short for a sentence")
    if CROSS_REFERENCES.search(text):
        found.append("refers to another text")
    if text.startswith(("Of ", "Its ", "Whether ", "Their ", "How ", "Which ")):
        found.append("begins as a fragment")
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", text):
        if not VERBS.search(sentence):
            found.append(f"has a sentence without a verb that is known: {sentence!r}")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "See there; 3 keeps 98.9 % of Gaussian noise in two dimensions.",
        "Of LO-RANSAC.",
        "Fewer are DEGENERATE.",
        "Likewise of the first radial distortion coefficient.",
        "largest norm of the gradient",
        "Largest Sampson distance of an inlier",
        "Longer side of the working image in pixels.",
        "Whether matches are aligned with sub-pixel accuracy.",
        "",
    ],
)
def test_texts_that_once_reached_users_are_refused(text: str) -> None:
    assert faults(text)


EVERY = [*parameters.declared(), *parameters.parameters_of(TrackSettings())]


@pytest.mark.parametrize("parameter", EVERY, ids=lambda p: p.name)
def test_a_parameter_is_described_by_sentences(parameter: parameters.Parameter) -> None:
    assert faults(parameter.description) == []


def test_every_number_has_a_range_in_its_ros_descriptor() -> None:
    numbers = [p for p in EVERY if p.kind in ("integer", "double")]
    assert len(numbers) > 80
    without = [p.name for p in numbers if p.low is None or p.high is None or not p.limits]
    assert without == []
    assert all(p.low <= p.default <= p.high for p in numbers)  # type: ignore[operator]


def test_groups_of_parameters_are_described_too() -> None:
    groups = [Configuration.model_fields["tracker"], Configuration().tracker.__class__.model_fields["pose"]]
    assert [faults(info.description or "") for info in groups] == [[], []]


def test_topics_and_services_are_described_by_whole_words() -> None:
    for entry in (*SUBSCRIBED.values(), *PUBLISHED.values(), *SERVICES):
        assert entry.description.endswith("."), entry.name
        assert not CROSS_REFERENCES.search(entry.description), entry.name


def test_generated_texts_hold_what_the_declarations_say() -> None:
    """Nothing is scraped: the text of a field reaches the tables and the launch arguments as it is."""
    written, arguments = tables(), launch_parameters()
    for name, info, _ in declared_fields(Configuration()):
        text = info.description or ""
        assert re.sub(r"[|<]", lambda m: f"\\{m[0]}", text) in written, name
        assert "." in name or text in arguments, name
    for matcher, presets in all_presets().items():
        for name, info, _ in option_fields(presets["base"]):
            assert f"| `{matcher}.{name}` |" in written
            assert re.sub(r"[|<]", lambda m: f"\\{m[0]}", limits_of(info)) in written


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_epipolar_error_px": 0.0}, "max_epipolar_error_px"),
        ({"max_epipolar_error_px": float("nan")}, "max_epipolar_error_px"),
        ({"focal_std": float("inf")}, "focal_std"),
        ({"min_inlier": 20}, "min_inlier"),
        ({"min_iterations": 100, "max_iterations": 10}, "min_iterations must lie in 1..max_iterations"),
    ],
)
def test_settings_of_the_estimator_are_frozen_and_checked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PoseConfig(**settings)
    with pytest.raises(ValueError, match="frozen"):
        PoseConfig().min_inliers = 20  # type: ignore[misc]


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configurations that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        if get_origin(annotation) is not Annotated or not isinstance(part, FieldInfo):
            yield from models_of(part)


def described(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        nested = list(models_of(info.annotation))
        for other in nested:
            yield from described(other)
        if not nested and name != "kind":  # the word that chooses the source
            yield f"{model.__name__}.{name}", info


def recipe_fields() -> dict[str, FieldInfo]:
    pytest.importorskip("lightning")
    from ros2_densematch.training.recipe import Recipe
    from ros2_densematch.training.stages.registry import STAGES

    found = dict(described(Recipe))
    for module, _, config in STAGES.values():
        found |= dict(described(getattr(import_module(module), config)))
    return found


def test_every_field_of_a_recipe_is_described_by_sentences_and_every_number_bounded() -> None:
    fields = recipe_fields()
    assert len(fields) > 150
    assert {name: found for name, info in fields.items() if (found := faults(info.description or ""))} == {}
    unbounded = [
        name for name, info in fields.items() if {int, float} & {info.annotation, *get_args(info.annotation)}
        and get_origin(info.annotation) not in (list, tuple) and not limits_of(info)
    ]  # fmt: skip
    assert unbounded == []


def test_no_text_is_taken_from_a_docstring(repository: Path) -> None:
    """Except the help of a subcommand, whose docstring is written for that, and an API class that wraps another."""
    using = [
        str(path.relative_to(repository))
        for path in sorted((repository / "ros2_densematch").rglob("*.py"))
        if re.search(r"__doc__|getdoc\(", path.read_text("utf-8"))
    ]
    assert using == ["ros2_densematch/api/tracker.py", "ros2_densematch/cli/main.py"]


def cli_options() -> dict[str, str]:
    """Every option and argument of every subcommand: its name and its help."""
    import typer.main

    found: dict[str, str] = {}

    def walk(command: Any, path: str) -> None:
        for parameter in command.params:
            if parameter.name != "help":
                found[f"{path} {parameter.name}"] = getattr(parameter, "help", None) or ""
        for name, other in getattr(command, "commands", {}).items():
            walk(other, f"{path} {name}")

    for name in COMMANDS:
        group: Any = typer.main.get_command(build_app(name))
        walk(group.commands[name], name)
    return found


def test_help_of_the_command_line_stands_alone() -> None:
    """Help names what an option is, as is usual there; like other texts it leans on no other one."""
    helps = cli_options()
    assert len(helps) > 80
    leaning = re.compile(r"(?:Of|Its|Their|The same|Likewise|See)\b")
    wrong = {
        name: text
        for name, text in helps.items()
        if not text.endswith(".") or leaning.match(text) or CROSS_REFERENCES.search(text) or len(text.split()) < 2
    }
    assert wrong == {}
