"""The launch files call the command with options that it has. (`launch` comes with ROS only: a recorder stands in.)"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ros2_densematch.cli.main import build_app


class Recorder:
    """Takes any arguments and keeps them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class LaunchConfiguration(Recorder):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


@pytest.fixture
def replay_launch(repository: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    names = {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "EmitEvent", "ExecuteProcess", "OpaqueFunction"],
        "launch.events": ["Shutdown"],
        "launch.substitutions": [],
    }
    for module_name, classes in names.items():
        module = types.ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorder,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.setattr(sys.modules["launch.substitutions"], "LaunchConfiguration", LaunchConfiguration, raising=False)
    spec = importlib.util.spec_from_file_location("replay_launch", repository / "launch/replay.launch.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_every_option_of_the_launch_file_is_one_of_replay(replay_launch: types.ModuleType) -> None:
    replay = get_command(build_app("replay")).commands["replay"]  # type: ignore[attr-defined]
    known = {option for parameter in replay.params for option in parameter.opts}
    assert known >= {option for option, _ in replay_launch.OPTIONS.values()} | {"--out"}


def test_every_argument_is_declared(replay_launch: types.ModuleType) -> None:
    description = replay_launch.generate_launch_description()
    declared = [e.args[0] for e in description.args[0] if type(e).__name__ == "DeclareLaunchArgument"]
    assert declared == ["bag", "out", *replay_launch.OPTIONS]


def test_empty_arguments_are_left_out_of_the_command(replay_launch: types.ModuleType) -> None:
    context = dict.fromkeys(replay_launch.OPTIONS, "") | {"bag": "my bag", "out": "results", "image_topic": "/camera"}
    (process,) = replay_launch._replay(context)
    assert process.kwargs["cmd"] == [
        *(sys.executable, "-m", "ros2_densematch", "replay", "my bag", "--out", "results"),
        *("--image-topic", "/camera"),
    ]
