"""Copies the folders that ROS wants at the top of a package (messages, configuration, launch files) into the wheel.

Everything else is declared in pyproject.toml.
"""

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


setup(cmdclass={"build_py": BuildWithShare})
