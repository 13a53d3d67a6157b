"""What a loaded matcher is: its device, its weights, and the name that messages carry."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.network import RANDOM, NetworkMatcher
from ros2_densematch.matchers.onnx_network import OnnxNetwork
from ros2_densematch.weights.catalogue import SHIPPED, digest, path_of
from ros2_densematch.weights.loading import stated_licence
from ros2_densematch.weights.official import OFFICIAL
from ros2_densematch.weights.store import stored_file


def device_of(matcher: Matcher) -> str:
    """Where a matcher runs: cpu, cuda or cuda:N."""
    return str(matcher.device)


def runtime_of(matcher: Matcher) -> str:
    """Which runtime and provider run the network, in words, where that is not PyTorch; else ""."""
    network = getattr(matcher, "network", None)
    return network.session.sentence if isinstance(network, OnnxNetwork) else ""


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


def licensed_weights(matcher: NetworkMatcher, weights: str) -> list[dict[str, str]]:
    """Every file of weights that a matcher runs with: its name, SHA-256 and licence.

    Args:
        matcher: loaded.
        weights: the file that was named, "random", or "" for the usual ones.
    """
    if weights == RANDOM:
        return [{"name": RANDOM, "sha256": "", "licence": "none: untrained"}]
    if weights:
        file = Path(weights)
        return [{"name": file.name, "sha256": digest(file), "licence": stated_licence(file)}]
    if matcher.name in SHIPPED:
        known = SHIPPED[matcher.name]
        return [{"name": known.file, "sha256": known.sha256, "licence": known.licence}]
    files = [(entry, stored_file(entry.name)) for entry in OFFICIAL.values() if entry.name in matcher.checkpoints()]
    return [{"name": f.name, "sha256": digest(f), "licence": entry.licence} for entry, f in files]
