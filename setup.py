"""What pyproject.toml cannot say: the folders that ROS wants at the top of a package (messages, configuration, launch
files) go into the wheel, and the README's links become absolute for a package index.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHARE = ("msg", "srv", "config", "launch")
SUFFIXES = {".msg", ".srv", ".yaml", ".yml", ".json", ".rviz", ".py", ".xml"}


class BuildWithShare(build_py):
    """`build_py` that also puts msg/, srv/, config/ and launch/ below ros2_densematch/share/."""

    def _share(self) -> dict[str, str]:
        # An editable install reads these folders from the source tree itself.
        if self.editable_mode:
            return {}
        target = Path(self.build_lib) / "ros2_densematch" / "share"
        files = [p for folder in SHARE for p in sorted(Path(folder).rglob("*")) if p.suffix in SUFFIXES]
        return {str(target / path): str(path) for path in files if "__pycache__" not in path.parts}

    def run(self) -> None:
        super().run()
        for target, source in self._share().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._share()]

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._share()}

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self._share().values()]


def source_url() -> str:
    """`Source` of [project.urls] in pyproject.toml; "" while the owner has not filled it in."""
    found = re.search(r'^Source = "([^"]+)"', Path("pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return found[1].rstrip("/") if found else ""


def readme_for_index(text: str, url: str) -> str:
    """The README as a package index can show it, which has no other file of the repository.

    Args:
        text: with links relative to the repository.
        url: of the repository; "" = not known, then links become plain words and pictures are left out.
    """

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        if not url:
            return "" if picture else words
        return f"{picture}[{words}]({url}/{'raw' if picture else 'blob'}/main/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


if __name__ == "__main__":
    setup(
        cmdclass={"build_py": BuildWithShare},
        long_description=readme_for_index(Path("README.md").read_text("utf-8"), source_url()),
        long_description_content_type="text/markdown",
    )
