"""Matchers of other packages, found by their entry points in the group `densematch.matchers`.

A package that is installed beside this one and says in its pyproject.toml

    [project.entry-points."densematch.matchers"]
    toy = "toy_matcher:ToyMatcher"

adds a matcher `toy`. Names are read from the packages' metadata; a plugin is imported when it is used. What is wrong
with one plugin concerns that plugin alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata

from ros2_densematch.matchers.base import Matcher

GROUP = "densematch.matchers"


@dataclass(frozen=True)
class Plugin:
    """An entry point of the group.

    Attributes:
        name: of the matcher.
        package: distribution and version that it comes from.
        target: `module:Class`.
        problem: what already its metadata says against it, or "".
    """

    name: str
    package: str
    target: str
    problem: str = ""

    def load(self) -> type[Matcher]:
        """The matcher's class.

        Raises:
            ValueError: it cannot be imported or is no matcher of this name; the message names package and cause.
        """
        if self.problem:
            raise ValueError(self._cannot(self.problem))
        entry = metadata.EntryPoint(self.name, self.target, GROUP)
        try:
            found = entry.load()
        except (Exception, SystemExit) as error:
            raise ValueError(self._cannot(f"{type(error).__name__}: {error}")) from error
        if not (inspect.isclass(found) and issubclass(found, Matcher)):
            raise ValueError(self._cannot(f"{self.target} is no subclass of ros2_densematch.Matcher"))
        if found.name != self.name:
            raise ValueError(self._cannot(f"{self.target} says name = {found.name!r}"))
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise ValueError(self._cannot(f"{self.target} lacks {missing}"))
        return found

    def _cannot(self, why: str) -> str:
        lines = " ".join(why.split())
        return f"matcher {self.name!r} of {self.package} cannot be used ({lines}): repair or remove that package"


def plugins(taken: Collection[str]) -> dict[str, Plugin]:
    """Every plugin that is installed, by name, sorted. One that wants a name of `taken` stands under that name with its
    package behind it.

    Args:
        taken: names of the matchers of this package, which no plugin can take over.
    """
    found: dict[str, Plugin] = {}
    packages: set[str] = set()
    for distribution in metadata.distributions():
        for plugin in _plugins_of(distribution):
            name = plugin.name
            if f"{plugin.package.partition(' ')[0]} {name}" in packages:
                continue  # an older copy farther back on the path, which Python does not see either
            packages.add(f"{plugin.package.partition(' ')[0]} {name}")
            if name in taken:
                plugin = _refused(plugin, f"{name} is a matcher of densematch itself")
                name = f"{name} ({plugin.package})"
            elif name in found:
                plugin = _refused(plugin, f"{found[name].package} has a matcher of this name too")
            found[name] = plugin
    return dict(sorted(found.items()))


def problems(taken: Collection[str]) -> dict[str, str]:
    """What is wrong with plugins, by name; each is imported to find out. Names without a fault are absent."""
    faults = {}
    for name, plugin in plugins(taken).items():
        try:
            plugin.load()
        except ValueError as error:
            faults[name] = str(error)
    return faults


def _refused(plugin: Plugin, why: str) -> Plugin:
    return Plugin(plugin.name, plugin.package, plugin.target, why)


def _plugins_of(distribution: metadata.Distribution) -> list[Plugin]:
    try:
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        package = f"{distribution.metadata['Name']} {distribution.version}" if entries else ""
    except Exception as error:  # noqa: BLE001 - metadata of a foreign package, damaged in any way
        name = _folder_name(distribution)
        return [Plugin(name, name, "", f"its metadata cannot be read, {type(error).__name__}: {error}")] if name else []
    return [Plugin(entry.name, package, entry.value) for entry in entries]


def _folder_name(distribution: metadata.Distribution) -> str:
    """The package of damaged metadata that names this group, by its folder; "" where the group is not named."""
    path = getattr(distribution, "_path", None)
    try:
        text = (path / "entry_points.txt").read_text("utf-8", errors="replace") if path is not None else ""
    except OSError:
        return ""
    return str(path.name).partition("-")[0] if path is not None and GROUP in text else ""
