"""What takes part in an evaluation: a matcher of ours with preset or checkpoint, or a peer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ros2_densematch.evaluation.peers.registry import PEERS, load_peer, peer_weights
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.registry import list_matchers, load_matcher
from ros2_densematch.weights.catalogue import SHIPPED, digest, path_of


@dataclass(frozen=True, eq=False)
class Entry:
    """One column of a comparison.

    Attributes:
        name: as it stands in the report and as the name of its folder.
        facts: matcher, preset and weights, by which stored predictions are recognised.
        load: builds the matcher; called only where something is left to match.
        own_limit: whether the number of matches is the matcher's own matter (peers) and not the protocol's.
    """

    name: str
    facts: dict[str, Any]
    load: Callable[[], Matcher]
    own_limit: bool = False


def entry_of(spec: str, *, device: str = "auto", weights: Path | None = None) -> Entry:
    """The entry that a word names.

    Args:
        spec: MATCHER[:PRESET], or the name of a peer (`peers.registry`).
        device: of our matchers.
        weights: a checkpoint, or None for the shipped or official weights.

    Raises:
        ValueError: no such matcher or peer; the message lists them.
        FileNotFoundError: the checkpoint does not exist.
    """
    matcher, _, preset = spec.partition(":")
    preset = preset or "base"
    if matcher in PEERS:
        facts = {"matcher": matcher, "preset": "", "weights": peer_weights(matcher)}
        return Entry(matcher, facts, lambda: load_peer(matcher), own_limit=True)
    if matcher not in list_matchers():
        raise ValueError(
            f"unknown matcher {matcher!r}: choose one of {', '.join(list_matchers())}, or a peer: {', '.join(PEERS)}"
        )
    name = matcher if preset == "base" else f"{matcher}-{preset}"
    facts = {"matcher": matcher, "preset": preset, "weights": "official"}
    if weights is not None:
        if not weights.is_file():
            raise FileNotFoundError(f"there is no weights file {weights}: check the path")
        facts["weights"] = f"sha256:{digest(weights)[:16]}"
        name += "@" + re.sub(r"[^\w.-]", "_", weights.stem)
    elif matcher in SHIPPED:
        facts["weights"] = f"shipped sha256:{digest(path_of(matcher))[:16]}"
    chosen = None if weights is None else str(weights)

    def load() -> Matcher:
        return load_matcher(matcher, device="auto" if matcher == "sift" else device, preset=preset, weights=chosen)

    return Entry(name, facts, load)
