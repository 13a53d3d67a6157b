"""The catalogue of weights that ship with the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Weight:
    """One weights file.

    Attributes:
        name: name in the catalogue.
        file: file name in this folder.
        matcher: matcher that loads it.
        sha256: digest of the file, hexadecimal.
        size: bytes.
        licence: under which the file may be used and passed on.
        ancestors: networks that it started from or was taught by, each with its licence; empty where there are none.
    """

    name: str
    file: str
    matcher: str
    sha256: str
    size: int
    licence: str
    ancestors: tuple[str, ...]


SHIPPED: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        Weight(
            name="gcm",
            file="gcm.safetensors",
            matcher="gcm",
            sha256="c0e4e2bb1e9e5bf19b28930a6748fbddb370421de7dca96d6bbfaa086bf39e7d",
            size=3_677_188,
            licence="Apache-2.0",
            ancestors=(
                "EfficientNet-Lite0, ImageNet-1k (Apache-2.0): start of the backbone",
                "EdgePoint2 E64, MegaDepth (MIT): teacher of the descriptors and the saliency",
            ),
        ),
        Weight(
            name="gcm_guided",
            file="gcm_guided.safetensors",
            matcher="gcm",
            sha256="c74b9a7b9a9d36e3e321bdba9c2adafcb7327feb1917cdfcbe161eac4499c981",
            size=2_176,
            licence="Apache-2.0",
            ancestors=(),
        ),
        Weight(
            name="gcm_pair",
            file="gcm_pair.safetensors",
            matcher="gcm",
            sha256="aaca8a57834081a48446b2eee3aeb4e12e1a57d86357482f1710f45c3254c0ab",
            size=211_508,
            licence="Apache-2.0",
            ancestors=(),
        ),
        Weight(
            name="condl",
            file="condl.safetensors",
            matcher="condl",
            sha256="ed20ee956242a9dc0bab294a154ba9a881fb8b825f6ccbfe191d65efa96b3d3e",
            size=5_291_520,
            licence="Apache-2.0",
            ancestors=(),
        ),
    )
}


def path_of(name: str) -> Path:
    """The file of a shipped weight.

    Raises:
        ValueError: no such name in the catalogue.
        FileNotFoundError: the file is missing from this installation.
    """
    if name not in SHIPPED:
        raise ValueError(f"no shipped weights {name!r}: choose one of {', '.join(sorted(SHIPPED))}")
    path = _FOLDER / SHIPPED[name].file
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing from the installation: install densematch again")
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        h = hashlib.sha256()
        while block := file.read(1 << 20):
            h.update(block)
    return h.hexdigest()
