"""Files that come with the package, found by name: recipes, the parameter file, two photos and a short bag to try."""

from __future__ import annotations

from pathlib import Path

SAMPLE = "sample"
_MODULE = Path(__file__).resolve().parent.parent


def share_folder(module: Path = _MODULE) -> Path:
    """The folder that holds `msg/`, `srv/` and `config/`: `share/` in an installed package, else the root of the source
    tree.

    Raises:
        FileNotFoundError: neither has them: the installation is broken.
    """
    for folder in (module / "share", module.parent):
        if (folder / "msg" / "Correspondences.msg").is_file():
            return folder
    raise FileNotFoundError(
        f"no message definitions in {module / 'share'} or {module.parent}: install the package again"
    )


def recipe_file(given: Path) -> Path:
    """A training recipe by path or by name (`condl`); what is neither is returned as it was given."""
    return _by_name(given, share_folder() / "config" / "training")


def recipe_names() -> list[str]:
    """The training recipes that ship."""
    return sorted(file.stem for file in (share_folder() / "config" / "training").glob("*.yaml"))


def shipped_parameters(given: Path) -> Path:
    """A parameter file by path or by name (`matcher`); what is neither is returned as it was given."""
    return _by_name(given, share_folder() / "config")


def sample_file(given: Path) -> Path:
    """`sample/a.jpg`, `sample/b.jpg` and `sample/flight` are in the package, unless the working folder has them; any
    other path is returned as it was given."""
    if given.exists() or given.is_absolute() or given.parts[:1] != (SAMPLE,) or ".." in given.parts:
        return given
    inside = _MODULE / given
    return inside if inside.exists() else given


def _by_name(given: Path, folder: Path) -> Path:
    if given.exists() or len(given.parts) != 1:
        return given
    file = folder / (given.name if given.suffix == ".yaml" else f"{given.name}.yaml")
    return file if file.is_file() else given
