"""What a loaded matcher is: its device, its weights, and the name that messages carry."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.matchers.base import Matcher
from ros2_densematch.weights.catalogue import SHIPPED, digest, path_of
from ros2_densematch.weights.official import OFFICIAL


def device_of(matcher: Matcher) -> str:
    """Where a matcher runs: cpu, cuda or cuda:N."""
    return str(matcher.device)


def weights_of(matcher: Matcher, weights: str) -> str:
    """Which weights a matcher runs with: the file `weights` where one was named, "shipped", "official" (fetched), or
    "none" for the classical ones."""
    if weights or matcher.name in SHIPPED:
        return weights or "shipped"
    return "official" if any(entry.matcher == matcher.name for entry in OFFICIAL.values()) else "none"


def identity_of(matcher: Matcher, weights: str) -> str:
    """Name of the matcher with the checksum of its weights (`gcm@sha256:0123456789abcdef`), as messages carry it."""
    named = weights_of(matcher, weights)
    path = path_of(matcher.name) if named == "shipped" else Path(named)
    return f"{matcher.name}@sha256:{digest(path)[:16]}" if path.is_file() else matcher.name
