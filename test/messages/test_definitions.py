"""One set of .msg and .srv files serves rosidl, bags and topics."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from ros2_densematch.files.shipped import share_folder
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


def fields(text: str) -> list[tuple[str, str, str]]:
    """(type, name, comment) of every field and constant of a .msg or .srv file, comment lines below it included."""
    found: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        declaration, _, comment = line.partition("#")
        if declaration.strip() and declaration.strip() != "---":
            kind, name = declaration.split()[:2]
            found.append((kind, name, comment.strip()))
        elif line.startswith(" ") and found:
            found[-1] = (*found[-1][:2], f"{found[-1][2]} {comment.strip()}")
    return found


DEFINITIONS = ["srv/MatchPair.srv", *(f"msg/{name}.msg" for name in NAMES)]


@pytest.mark.parametrize("path", DEFINITIONS)
def test_every_field_and_constant_has_a_comment(repository: Path, path: str) -> None:
    found = fields((repository / path).read_text())
    assert len(found) >= 5
    assert not [name for _, name, comment in found if not comment]


@pytest.mark.parametrize("path", DEFINITIONS)
def test_every_measured_quantity_has_a_unit_or_a_range(repository: Path, path: str) -> None:
    unit = re.compile(r"pixels|px\^-2|milliseconds|\bms\b|metres|degrees|per second|\[0, 1\]")
    measured = [f for f in fields((repository / path).read_text()) if f[0].startswith("float")]
    assert not [name for _, name, comment in measured if not unit.search(comment)]


@pytest.mark.parametrize("path", DEFINITIONS)
def test_what_has_a_pose_or_a_header_names_its_frame(repository: Path, path: str) -> None:
    for kind, name, comment in fields((repository / path).read_text()):
        if kind.startswith(("std_msgs/Header", "geometry_msgs/")) or name.endswith("frame_id"):
            assert re.search(r"frame", comment), f"{path}: {name}"


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
    monkeypatch.setattr(definitions, "share_folder", partial(share_folder, module))
    assert definitions.share_folder() == module / "share"
    assert len(definitions.message_definitions()) == len(NAMES) + 2
    shutil.rmtree(module / "share")
    with pytest.raises(FileNotFoundError, match="install the package again"):
        definitions.share_folder()
