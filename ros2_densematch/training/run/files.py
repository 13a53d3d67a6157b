"""Files of a training run, each written whole or not at all: checkpoints, weights, and the manifest of the data."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ros2_densematch import __version__
from ros2_densematch.files.atomic import write_bytes, write_text
from ros2_densematch.training.fingerprint import fingerprint
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.recipe import Recipe


def write_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Tensors and metadata as a safetensors file."""
    from safetensors.torch import save

    write_bytes(path, save(state, metadata=metadata), durable=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises ValueError naming a damaged file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read weights {path}: {error}: delete it, or start again with --no-resume") from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a weights file says about itself; empty where there is none, or a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint. Raises ValueError naming a damaged file."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged zip file or pickle raises one of many kinds
        raise ValueError(f"cannot read checkpoint {path}: delete it, or start again with --no-resume") from error
    return content


def digests(files: Iterable[Path], data: Path, out: Path) -> dict[str, str]:
    """SHA-256 by path, relative to the data or output folder where the file lies in it."""
    result = {}
    for path in files:
        try:
            with path.open("rb") as stream:
                digest = hashlib.sha256()
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise TrainingDataError(f"cannot read training file {path}: {error.strerror}: restore it") from error
        result[_shown(path, data, out)] = digest.hexdigest()
    return result


def _shown(path: Path, data: Path, out: Path) -> str:
    for root, prefix in ((data, ""), (out, "out/")):
        if path.is_relative_to(root):
            return prefix + path.relative_to(root).as_posix()
    return path.as_posix()


def start_manifest(path: Path, recipe: Recipe, seed: int, files: dict[str, str], *, resume: bool) -> None:
    """Writes the manifest of a new run, or checks that a resumed one has the same recipe, seed and data.

    Raises:
        ValueError: the run in this folder was started with something else; the message says with what.
    """
    manifest = {
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "densematch": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "files_sha256": fingerprint(files),
        "files": files,
    }
    if resume and path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: start again with --no-resume or another --out") from error
        before["recipe"] = _completed(before.get("recipe"))
        for key in ("recipe", "seed", "files_sha256"):
            if before.get(key) != manifest[key]:
                what = {"recipe": "another recipe", "seed": "another seed", "files_sha256": "other training data"}[key]
                hint = _first_change(before, manifest) if key == "files_sha256" else ""
                raise ValueError(
                    f"{path.parent} holds a run with {what}{hint}: use another --out, or --no-resume to start again"
                )
        return
    write_text(path, json.dumps(manifest, indent=1), durable=True)


def _completed(recipe: Any) -> Any:
    """A recipe of an earlier version with the defaults of fields that it did not have."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _first_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = before.get("files", {}), now["files"]
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return f" ({len(changed)} files differ, the first is {changed[0]})" if changed else ""


def finish_manifest(path: Path, steps: dict[str, int], skipped: Counter[str]) -> None:
    """Adds how far the run has come and which data was skipped."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["steps"] = steps
    manifest["skipped"] = dict(skipped.most_common())
    write_text(path, json.dumps(manifest, indent=1), durable=True)
