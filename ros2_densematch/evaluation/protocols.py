"""Fixed ways of measuring, by name: everything but the matcher that decides a figure.

| | images | intrinsics | translation | failed pair | estimators |
| --- | --- | --- | --- | --- | --- |
| default | longer side 640 | half-pixel rule | signed | 180 degrees | PoseLib 1 px; OpenCV RANSAC 0.5 px |
| densematch | longer side 640 | half-pixel rule | signed | 180 degrees | PoseLib 1 px; USAC_MAGSAC 1 px |
| superglue | longer side 1600, ScanNet 640 x 480 | plain scaling | smaller of e, 180 - e | infinite | RANSAC 1 px |
| roma | as stored, judged at 1200 (ScanNet 480) | plain | smaller of both | 90 degrees | RANSAC 0.5 px, 5 runs |
| lightglue | longer side 1600 | half-pixel rule | smaller of both | infinite | PoseLib and RANSAC, threshold swept |

superglue: Sarlin et al., CVPR 2020, section 5.2, and the released evaluation. roma: Edstedt et al., CVPR 2024,
    section 4,
and the released benchmarks, which shuffle the matches before each of five runs. lightglue: Lindenberger et al., ICCV
2023, section 5, as in glue-factory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ros2_densematch.evaluation.datasets.base import DatasetError

EstimatorName = Literal["poselib", "opencv", "magsac", "own"]
ESTIMATORS: tuple[EstimatorName, ...] = ("poselib", "opencv", "magsac", "own")
_SPOKEN = {"poselib": "PoseLib", "opencv": "OpenCV RANSAC", "magsac": "OpenCV USAC_MAGSAC", "own": "densematch"}
# pixels; what --threshold auto tries
SWEEP_PX = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class EstimatorSetting:
    """A robust estimator and its inlier threshold in pixels of the judged image; None sweeps `SWEEP_PX`."""

    name: EstimatorName
    threshold_px: float | None

    @property
    def label(self) -> str:
        """As it stands beside a figure."""
        threshold = "threshold chosen on the test data" if self.threshold_px is None else f"{self.threshold_px:g} px"
        return f"{_SPOKEN[self.name]} {threshold}"


@dataclass(frozen=True)
class ImageRule:
    """How images are brought to the size that the matcher sees.

    Attributes:
        longer_side: images are resized to it; None leaves them.
        exact_size: (width, height) in place of it.
        enlarge: whether smaller images grow.
        area: INTER_AREA (True) or INTER_LINEAR (False).
        half_pixel: K follows the resize by cx' = (cx + 0.5) s - 0.5, which is right for pixel centres at whole numbers;
            False: cx' = s cx, as in some released evaluations.
    """

    longer_side: int | None = 640
    exact_size: tuple[int, int] | None = None
    enlarge: bool = False
    area: bool = True
    half_pixel: bool = True

    @property
    def label(self) -> str:
        """As it stands beside a figure."""
        if self.exact_size is not None:
            return f"images {self.exact_size[0]} x {self.exact_size[1]}"
        return "images as stored" if self.longer_side is None else f"images at longer side {self.longer_side}"


@dataclass(frozen=True)
class Protocol:
    """Everything but the matcher and the data that decides a figure.

    Attributes:
        name: of the protocol.
        images: what the matcher sees.
        estimators: columns of the result for pose pairs.
        homography_estimators: the same for homographies.
        signed_translation: True: a translation in the opposite direction is wrong by 180 degrees; False: the smaller of
            the angle and its supplement counts.
        failure_deg: error of a pair without a pose.
        judged_longer_side, judged_shorter_side: thresholds are pixels of images of this size; None for both: of what
            the matcher saw.
        repeats: runs of the estimator with different seeds; the figures are means, with their standard deviation.
        shuffle: whether the matches are put into another order before each run.
        max_matches: at most so many a pair.
    """

    name: str
    images: ImageRule = ImageRule()
    estimators: tuple[EstimatorSetting, ...] = (EstimatorSetting("poselib", 1.0), EstimatorSetting("opencv", 0.5))
    homography_estimators: tuple[EstimatorSetting, ...] = (
        EstimatorSetting("magsac", 1.5),
        EstimatorSetting("poselib", 1.5),
    )
    signed_translation: bool = True
    failure_deg: float = 180.0
    judged_longer_side: int | None = None
    judged_shorter_side: int | None = None
    repeats: int = 1
    shuffle: bool = False
    max_matches: int = 5000

    def export_settings(self) -> dict[str, Any]:
        """What stored predictions depend on."""
        return {"images": asdict(self.images), "max_matches": self.max_matches}

    def facts(self) -> dict[str, Any]:
        """The `protocol` entry of scores.json."""
        labelled = {
            key: [asdict(e) | {"label": e.label} for e in getattr(self, key)]
            for key in ("estimators", "homography_estimators")
        }
        return {**asdict(self), **labelled}

    @property
    def judged_label(self) -> str:
        """Of which image the thresholds are pixels."""
        if self.judged_longer_side is not None:
            return f"{self.images.label}, thresholds at longer side {self.judged_longer_side}"
        if self.judged_shorter_side is not None:
            return f"{self.images.label}, thresholds at shorter side {self.judged_shorter_side}"
        return self.images.label


_BOTH = (EstimatorSetting("poselib", None), EstimatorSetting("opencv", None))
_PROTOCOLS = {
    "default": Protocol("default"),
    "densematch": Protocol(
        "densematch",
        estimators=(EstimatorSetting("poselib", 1.0), EstimatorSetting("magsac", 1.0)),
        homography_estimators=(EstimatorSetting("magsac", 1.5),),
    ),
    "superglue": Protocol(
        "superglue",
        images=ImageRule(1600, enlarge=True, area=False, half_pixel=False),
        estimators=(EstimatorSetting("opencv", 1.0),),
        homography_estimators=(EstimatorSetting("opencv", 3.0),),
        signed_translation=False,
        failure_deg=float("inf"),
    ),
    "roma": Protocol(
        "roma",
        images=ImageRule(None, half_pixel=False),
        estimators=(EstimatorSetting("opencv", 0.5),),
        homography_estimators=(EstimatorSetting("opencv", 3.0),),
        signed_translation=False,
        failure_deg=90.0,
        judged_longer_side=1200,
        repeats=5,
        shuffle=True,
    ),
    "lightglue": Protocol(
        "lightglue",
        images=ImageRule(1600, enlarge=True),
        estimators=_BOTH,
        homography_estimators=_BOTH,
        signed_translation=False,
        failure_deg=float("inf"),
        max_matches=2048,
    ),
}
NAMES = tuple(_PROTOCOLS)


def protocol(name: str, dataset: str, longer_side: int | None = None) -> Protocol:
    """A protocol as it applies to a data set.

    Args:
        name: one of `NAMES`.
        dataset: name of the data set: ScanNet has its own image size under superglue and roma.
        longer_side: what the data set itself asks for (`Dataset.longer_side`), used by default and densematch.

    Raises:
        DatasetError: there is no such protocol.
    """
    if name not in _PROTOCOLS:
        raise DatasetError(f"unknown protocol {name!r}: choose one of {', '.join(NAMES)}")
    chosen = _PROTOCOLS[name]
    scannet = "scannet" in dataset.lower()
    if name == "superglue" and scannet:
        return replace(chosen, images=replace(chosen.images, longer_side=None, exact_size=(640, 480)))
    if name == "roma" and scannet:
        return replace(chosen, judged_longer_side=None, judged_shorter_side=480)
    if name in ("default", "densematch") and longer_side is not None:
        return replace(chosen, images=replace(chosen.images, longer_side=longer_side))
    return chosen


def with_estimators(chosen: Protocol, estimator: str | None, threshold: str | None) -> Protocol:
    """The protocol with another estimator, another threshold, or both.

    Args:
        chosen: the protocol.
        estimator: one of `ESTIMATORS`, or None to keep the columns.
        threshold: pixels as text, "auto" for the sweep, or None: the protocol's for that estimator, else 1 px.

    Raises:
        DatasetError: no such estimator, or the threshold is no positive number.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise DatasetError(f"unknown estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}")
    value = None if threshold in (None, "auto") else _positive(str(threshold))

    def changed(settings: tuple[EstimatorSetting, ...]) -> tuple[EstimatorSetting, ...]:
        if estimator is not None:
            known = tuple(e for e in settings if e.name == estimator)
            settings = known or (EstimatorSetting(estimator, 1.0),)
        return settings if threshold is None else tuple(replace(e, threshold_px=value) for e in settings)

    return replace(
        chosen,
        estimators=changed(chosen.estimators),
        homography_estimators=changed(chosen.homography_estimators),
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise DatasetError(f"the threshold {text!r} is no positive number of pixels and not auto: give e.g. 1.0")
    return value
