"""One set of .msg and .srv files serves rosidl, bags and topics."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ros2_densematch.geometry.relative_pose import Geometry, Scale
from ros2_densematch.messages import definitions
from ros2_densematch.messages.typestore import message_class, ros1_typestore, ros2_typestore
from ros2_densematch.tracking.tracked_frame import Status

NAMES = ("Correspondences", "RelativePose", "KeyframeInfo", "MatcherStatus")


def test_all_messages_and_the_service_are_registered() -> None:
    store = ros2_typestore()
    for name in NAMES:
        assert f"densematch/msg/{name}" in store.types
        assert store.hash_rihs01(f"densematch/msg/{name}").startswith("RIHS01_")
    for half in ("Request", "Response"):
        assert f"densematch/srv/MatchPair_{half}" in store.types
    assert "tf/msg/tfMessage" in ros1_typestore().types


@pytest.mark.parametrize("path", ["msg/Correspondences.msg", "msg/RelativePose.msg", "msg/KeyframeInfo.msg"])
def test_every_field_has_a_comment(repository: Path, path: str) -> None:
    for line in (repository / path).read_text().splitlines():
        if line and not line.startswith((" ", "#")) and "=" not in line.split("#")[0]:
            assert "#" in line, f"{path}: {line}"


def test_field_names_are_spelled_out() -> None:
    text = "".join(definitions.message_definitions().values())
    assert not re.search(r"\bref_|query_precision", text)


def test_numbers_of_the_classes_agree_with_ours() -> None:
    relative_pose, status = message_class("densematch/msg/RelativePose"), message_class("densematch/msg/MatcherStatus")
    for geometry in Geometry:
        assert getattr(relative_pose, geometry.name) == geometry
    for message in (relative_pose, status, message_class("densematch/msg/KeyframeInfo")):
        for scale in Scale:
            assert getattr(message, f"SCALE_{scale.name}") == scale
    assert len({getattr(status, state.name) for state in Status}) == len(Status)


def test_an_installed_package_reads_its_own_share_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "site-packages" / "ros2_densematch"
    (module / "messages").mkdir(parents=True)
    for folder in ("msg", "srv"):
        shutil.copytree(repository / folder, module / "share" / folder)
    monkeypatch.setattr(definitions, "__file__", str(module / "messages" / "definitions.py"))
    assert definitions.share_folder() == module / "share"
    assert len(definitions.message_definitions()) == len(NAMES) + 2
    shutil.rmtree(module / "share")
    with pytest.raises(FileNotFoundError, match="install the package again"):
        definitions.share_folder()
