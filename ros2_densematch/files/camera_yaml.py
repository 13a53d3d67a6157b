"""Camera files: YAML as plain mappings, other forms as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ros2_densematch.files.atomic import write_text


def read_text(path: Path) -> str:
    """The text of a camera file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text.
    """
    if not path.is_file():
        if path.is_dir():
            raise ValueError(f"{path} is a folder: give the camera file in it")
        raise FileNotFoundError(f"there is no camera file {path}: check the path")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a camera file: it is not text") from None


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The keys and values of a YAML camera file, of its first document where there are several.

    OpenCV's `%YAML:1.0` header and `!!opencv-matrix` tags are read as well.

    Raises:
        ValueError: the text of `path` is no YAML or holds no keys.
    """
    lines = [line for line in text.splitlines() if not line.startswith("%YAML")]
    try:
        content = next(iter(yaml.load_all("\n".join(lines), Loader=_Loader)), None)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: this is not a YAML file: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        kind = "XML (OpenCV also writes .yml, which is read)" if text.lstrip().startswith("<") else "not a camera file"
        raise ValueError(f"{path}: this is {kind}: expected keys such as image_width and camera_matrix")
    return content


def write_camera_yaml(path: Path, content: dict[str, Any]) -> None:
    """Writes such a file; a partly written one is never left behind."""
    write_text(path, yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


class _Loader(yaml.SafeLoader):
    """A safe loader that also takes the matrices that OpenCV's FileStorage writes."""


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)
