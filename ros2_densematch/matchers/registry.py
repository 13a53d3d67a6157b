"""The list of matchers, by name: those of this package and those that other packages add (`plugins`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.config import MatcherConfig
from ros2_densematch.matchers.plugins import plugins, problems
from ros2_densematch.processor import warn_of_spinning

# name -> (module, class); modules are imported on use, so that listing costs nothing
_MATCHERS = {
    "cnngeometric": ("ros2_densematch.matchers.cnngeometric.matcher", "CnnGeometricMatcher"),
    "condl": ("ros2_densematch.matchers.condl.matcher", "CondlMatcher"),
    "dfm": ("ros2_densematch.matchers.dfm.matcher", "DfmMatcher"),
    "dkm": ("ros2_densematch.matchers.dkm.matcher", "DkmMatcher"),
    "gcm": ("ros2_densematch.matchers.gcm.matcher", "GcmMatcher"),
    "ncnet": ("ros2_densematch.matchers.ncnet.matcher", "NcnetMatcher"),
    "gcm_paper": ("ros2_densematch.matchers.gcm_paper.matcher", "GcmPaperMatcher"),
    "r2d2": ("ros2_densematch.matchers.r2d2.matcher", "R2d2Matcher"),
    "roma": ("ros2_densematch.matchers.roma.matcher", "RomaMatcher"),
    "roma_v2": ("ros2_densematch.matchers.roma_v2.matcher", "RomaV2Matcher"),
    "sift": ("ros2_densematch.matchers.sift.matcher", "SiftMatcher"),
    "sparse_ncnet": ("ros2_densematch.matchers.sparse_ncnet.matcher", "SparseNcnetMatcher"),
    "tiny_roma": ("ros2_densematch.matchers.tiny_roma.matcher", "TinyRomaMatcher"),
    "weakalign": ("ros2_densematch.matchers.weakalign.matcher", "WeakAlignMatcher"),
}


def list_matchers() -> list[str]:
    """Names that `load_matcher` takes, sorted, plugins among them.

    Nothing is imported for it, so a name may be that of a plugin that turns out broken: `broken_plugins` tells.
    """
    return sorted({*_MATCHERS, *(name for name, plugin in plugins(_MATCHERS).items() if not plugin.problem)})


def list_plugins() -> list[str]:
    """Those of `list_matchers` that other packages bring."""
    return [name for name in list_matchers() if name not in _MATCHERS]


def broken_plugins() -> dict[str, str]:
    """Plugins that cannot be used: name -> what is wrong with it and what to do. Imports every plugin to find out."""
    return problems(_MATCHERS)


def matcher_class(name: str) -> type[Matcher]:
    """The class of a matcher.

    Raises:
        ValueError: unknown name, or a plugin that cannot be used; the message says why.
    """
    if name in _MATCHERS:
        module, cls = _MATCHERS[name]
        own: type[Matcher] = getattr(import_module(module), cls)
        return own
    found = plugins(_MATCHERS)
    if name not in found:
        raise ValueError(f"unknown matcher {name!r}: choose one of {', '.join(list_matchers())}")
    return found[name].load()


def presets_of(name: str) -> Mapping[str, MatcherConfig]:
    """The presets of a matcher, each a configuration with all options; "base" is among them.

    Raises:
        ValueError: unknown matcher, or a plugin that cannot be used.
    """
    if name not in _MATCHERS:
        return matcher_class(name).PRESETS
    # the options are declared beside the matcher, so that they are known without loading it
    module = _MATCHERS[name][0].removesuffix("matcher") + "config"
    presets: Mapping[str, MatcherConfig] = import_module(module).PRESETS
    return presets


def all_presets() -> dict[str, Mapping[str, MatcherConfig]]:
    """The presets of every matcher that can be used, by name; `broken_plugins` tells of the others."""
    found = {}
    for name in list_matchers():
        with suppress(ValueError):
            found[name] = presets_of(name)
    return found


def load_matcher(
    name: str,
    *,
    device: str = "auto",
    preset: str = "base",
    weights: str | None = None,
    backend: str = "torch",
    **options: Any,
) -> Matcher:
    """Create a matcher by name.

    Args:
        name: one of `list_matchers()`.
        device: "auto" (CUDA if available, otherwise the CPU), "cpu", "cuda" or "cuda:N".
        preset: trades speed for accuracy; the matcher's page lists its presets.
        weights: None for the shipped weights, "random" for untrained ones (tests), or the path of a safetensors file.
        backend: runs the network: "torch", or "onnx" (gcm, condl) for ONNX Runtime (docs/onnx.md).
        options: configuration fields that override the preset, for example `min_score=0.2`.

    Raises:
        ValueError: the matcher, preset, device or backend is unknown (the message lists the valid ones), or a plugin
            cannot be used.
        FileNotFoundError: `weights` names a file that does not exist.
        ModuleNotFoundError: a package that the backend needs is not installed.
    """
    build: Any = matcher_class(name)  # each class has the options of its own configuration
    if backend != "torch":  # a plugin need not know of it
        options["backend"] = backend
    matcher: Matcher = build(device=device, preset=preset, weights=weights, **options)
    if matcher.device.type == "cpu":
        warn_of_spinning()
    return matcher
