"""What came of localising a frame against a keyframe."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.turning import Pair
from ros2_densematch.tracking.view import View


@dataclass(frozen=True, eq=False)
class Attempt:
    """A frame localised against a keyframe. Nothing of it counts until the tracker commits it.

    Attributes:
        view: the frame, with its camera and rate of turning as found.
        keyframe: with the points that the frame showed for the first time, and with the camera of its turning.
        matches: reference = keyframe, query = frame.
        found: the localisation from them.
        guided: the match was a guided one; otherwise the keyframe and the frame were matched anew.
        check: what a check that ended at this frame added to the guided match, in words; "" = none ended.
        why_full: why it was not guided although it could have been, in words; "" = it could not, or it was.
    """

    view: View
    keyframe: Keyframe
    matches: Correspondences
    found: Localisation
    guided: bool = False
    check: str = ""
    why_full: str = ""

    @property
    def inliers(self) -> int:
        """Matches that agree with the pose."""
        return int(self.found.inliers.sum())

    @property
    def support(self) -> float:
        """Expected number of right matches."""
        return support(self.matches)

    @property
    def known(self) -> int:
        """Inliers at points of the keyframe whose depth is known."""
        assert self.keyframe.structure is not None
        return int(self.keyframe.structure.known[self.found.index[self.found.inliers]].sum())

    @property
    def pair(self) -> Pair:
        """Frame and keyframe."""
        return Pair(self.view, self.keyframe)


def support(matches: Correspondences) -> float:
    """Expected number of right matches: the sum of their scores."""
    return float(matches.score.sum())
