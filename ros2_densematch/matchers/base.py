"""The contract of every matcher: encode an image once, then match two encodings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.common.stillness import thumbnail, with_stillness
from ros2_densematch.matchers.config import MatcherConfig, chosen_config
from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.matchers.result import RawMatches, finished
from ros2_densematch.nn.device import choose_device

__all__ = ["Encoding", "Image", "Mask", "Matcher", "RawMatches"]


class Matcher(ABC):
    """Base class of all matchers.

    A subclass defines its name and presets and implements `_encode` and `_match`. The base class checks arguments and
    finishes results. Matchers with a network derive from `NetworkMatcher` (network.py).

    Attributes:
        name: name in the registry.
        PRESETS: preset -> configuration; "base" is the default.
        preset: the chosen preset.
        config: the configuration of the preset with the given options.
        device: device of the network.
        backend: "torch", or "onnx" if the network runs in ONNX Runtime.
    """

    name: str = ""
    PRESETS: ClassVar[Mapping[str, MatcherConfig]] = {"base": MatcherConfig()}
    preset: str = "base"
    config: Any = MatcherConfig()
    device: torch.device = torch.device("cpu")
    backend: str = "torch"
    # what can run the network; "onnx" only where the results are the same
    BACKENDS: ClassVar[tuple[str, ...]] = ("torch",)
    # True if the matcher has a network, which can run on a GPU and takes weights.
    has_network: ClassVar[bool] = False
    # True if `encode(image, reference=True)` differs from `encode(image)`: a tracker then encodes keyframes again.
    reference_encoding_differs: bool = False
    # True if `match` can use a prior: a tracker then carries matches from frame to frame.
    uses_prior: bool = False
    # True if a guided match also finds points that are not in the prior: only then can a tracker follow frames with
    # guided matches alone.
    finds_new_points: bool = False

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: Any = None,
        backend: str = "torch",
        **options: Any,
    ) -> None:
        """
        Args:
            device: "auto" (CUDA if available and supported by the matcher, else CPU), "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`.
            weights: for a matcher without a network None or "random"; otherwise see `NetworkMatcher`.
            backend: what runs the network, one of `BACKENDS`.
            options: fields of the configuration that override the preset.

        Raises:
            ValueError: unknown preset, option, device or backend, a value out of range, or weights for a
                matcher that has none.
        """
        self.config = self._configured(preset, weights, options)
        self.preset = preset
        if not self.has_network:
            if not (weights is None or weights == "random"):
                raise ValueError(f"{self.name} has no weights, got weights={weights!r}: omit it")
            if device not in ("auto", "cpu"):
                raise ValueError(f"{self.name} runs on the CPU only, got device={device!r}: use cpu or auto")
        if backend not in self.BACKENDS:
            raise ValueError(f"{self.name} runs with backend {' or '.join(self.BACKENDS)}, got backend={backend!r}")
        self.backend = backend
        self.device = choose_device(device if self.has_network else "cpu")

    def _configured(self, preset: str, weights: Any, options: Mapping[str, Any]) -> MatcherConfig:
        """The preset with the options; a subclass overrides it if presets depend on the weights."""
        return chosen_config(self.name, self.PRESETS, preset, options)

    def encode(self, image: Image, *, reference: bool = False, mask: Mask | None = None) -> Encoding:
        """Does all work on one image that can be reused.

        Args:
            image: uint8, RGB (H, W, 3) or grey (H, W).
            reference: also do the work that only a keyframe needs.
            mask: bool (H, W), True for pixels that may be matched; False for others (robot body, fisheye border).

        Raises:
            ValueError: the image or the mask has the wrong type or shape; the message names the remedy.
        """
        height, width = _check_image(image)
        if mask is not None:
            _check_mask(mask, height, width)
            mask = mask.copy()  # the caller may reuse its memory
        data = self._encode(image, reference=reference, mask=mask)
        return Encoding(self.name, (width, height), data, mask, thumbnail(image))

    def match(
        self,
        reference: Encoding,
        query: Encoding,
        *,
        max_matches: int | None = 5000,
        seed: int = 0,
        prior: Prior | None = None,
        wide: bool = True,
    ) -> Correspondences:
        """Matches two encodings of this matcher; deterministic for a given `seed`.

        Args:
            reference: encoding of the keyframe.
            query: encoding of the current frame.
            max_matches: maximum number of matches, the best ones; None keeps all.
            seed: seed of all random numbers.
            prior: predicted positions of reference points in the query. A matcher that uses priors (`uses_prior`)
                searches only there, at a fraction of the cost, and returns few matches or none if the prediction was
                wrong. Other matchers ignore it.
            wide: search for large rotations, zooms and slants between the images. False saves that time if the images
                are neighbours in a video. It has no effect with a prior, or on a matcher without such a search.

        Raises:
            ValueError: an encoding comes from another matcher, or `max_matches` is negative.
        """
        previous = None if prior is None else prior.previous
        encodings = {"reference": reference, "query": query, "prior's previous image": previous}
        for role, encoding in encodings.items():
            if encoding is not None and encoding.matcher != self.name:
                raise ValueError(
                    f"the {role} was encoded by matcher {encoding.matcher!r}, this is {self.name!r}: encode it again"
                )
        if max_matches is not None and max_matches < 0:
            raise ValueError(f"max_matches must be None or at least 0, got {max_matches}")
        if prior is not None and self.uses_prior:
            raw = self._match_guided(reference, query, prior, max_matches=max_matches, seed=seed)
        else:
            match = self._match if wide else self._match_neighbours
            raw = match(reference, query, max_matches=max_matches, seed=seed)
        m = raw if isinstance(raw, Correspondences) else finished(raw, reference, query, max_matches)
        return with_stillness(m, reference, query)

    def guide_points(self, encoding: Encoding) -> NDArray[np.float32]:
        """Positions (N, 2) in pixels of an image that a guided match can follow while there are no matches yet.

        Raises:
            ValueError: the encoding comes from another matcher, or this matcher cannot use a prior.
        """
        if encoding.matcher != self.name:
            raise ValueError(f"the image was encoded by matcher {encoding.matcher!r}, this is {self.name!r}")
        if not self.uses_prior:
            raise ValueError(f"matcher {self.name!r} cannot use a prior: match without one")
        return self._guide_points(encoding)

    @abstractmethod
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> Any: ...

    @abstractmethod
    def _match(
        self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int
    ) -> RawMatches | Correspondences:
        """Returns all matches, in any order and unchecked; `max_matches` may save work but need not be respected.

        An implementation that returns Correspondences must do everything that `finished` does; a peer does so because
        its own order is part of the comparison.
        """

    def _match_neighbours(
        self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int
    ) -> RawMatches | Correspondences:
        """Like `_match`, without the search for large rotations, zooms and slants, if the matcher has one."""
        return self._match(reference, query, max_matches=max_matches, seed=seed)

    def _match_guided(
        self, reference: Encoding, query: Encoding, prior: Prior, *, max_matches: int | None, seed: int
    ) -> RawMatches | Correspondences:
        raise NotImplementedError(f"{type(self).__name__} sets uses_prior but lacks _match_guided")

    def _guide_points(self, encoding: Encoding) -> NDArray[np.float32]:
        raise NotImplementedError(f"{type(self).__name__} sets uses_prior but lacks _guide_points")


def _check_mask(mask: Mask, height: int, width: int) -> None:
    if isinstance(mask, np.ndarray) and mask.shape == (height, width) and mask.dtype == np.bool_:
        return
    given = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
    raise ValueError(
        f"mask must be bool of the image's shape ({height}, {width}), got {given}: "
        "resize it with nearest neighbour and compare with 0"
    )


def _check_image(image: Image) -> tuple[int, int]:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a NumPy array, got {type(image).__name__}: convert it with numpy.asarray")
    if image.dtype != np.uint8:
        raise ValueError(f"image must be uint8, got {image.dtype}: scale 16-bit or float images to 0..255 first")
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[2] == 3):
        raise ValueError(
            f"image must be RGB (H, W, 3) or grey (H, W), got shape {image.shape}: drop alpha with image[..., :3]"
        )
    height, width = image.shape[:2]
    if min(height, width) < 16:
        raise ValueError(f"image must be at least 16 x 16 pixels, got {width} x {height}: use a larger image")
    return height, width
