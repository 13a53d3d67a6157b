"""What CONTRIBUTING.md shows works as it stands there."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.io.sources.base import Picture, Source
from ros2_densematch.io.sources.files import load_camera
from ros2_densematch.io.sources.options import SourceOptions, refuse_topics
from ros2_densematch.messages.image import decode_image_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def blocks(repository: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (repository / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)


def test_the_source_of_frames_reads_its_frames(repository: Path, tmp_path: Path) -> None:
    [code] = [block for block in blocks(repository, "python") if "class ZipSource" in block]
    given: list[Any] = [Picture, Source, SourceOptions, Iterator, NDArray, partial, zipfile.ZipFile]
    names: dict[str, Any] = {item.__name__: item for item in [*given, load_camera, refuse_topics, decode_image_bytes]}
    names |= {"np": np, "Path": Path, "NDArray": NDArray}
    exec(code, names)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for k in range(4):
            picture = cv2.imencode(".jpg", np.full((24, 32, 3), 40 * k, np.uint8))[1].tobytes()
            archive.writestr(f"{k}.jpg", picture if k != 2 else b"no picture")
    source = names["ZipSource"](tmp_path / "pictures.zip", SourceOptions(rate_hz=5.0))
    frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [0, 200_000_000, 600_000_000]
    assert [frame.index for frame in frames] == [0, 1, 3]
    assert source.dropped == 1
    assert source.length == 4


def test_the_entry_point_is_that_of_the_template(repository: Path) -> None:
    [shown] = blocks(repository, "toml")
    template = tomllib.loads((repository / "docs" / "plugin" / "pyproject.toml").read_text("utf-8"))
    assert tomllib.loads(shown)["project"]["entry-points"] == template["project"]["entry-points"]
