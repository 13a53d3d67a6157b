"""The work of `densematch match`: pairs in, their files and one summary out."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ros2_densematch.cli.errors import BAD_INPUT, DONE, EMPTY, INTERRUPTED, InputError, is_full, one_line
from ros2_densematch.cli.interrupt import stop_request
from ros2_densematch.cli.match_progress import PROGRESS, MatchProgress, fingerprint_of
from ros2_densematch.cli.options import estimator_facts, identity_of, matcher_facts, say
from ros2_densematch.cli.pair_cameras import KnownCameras, PairCameras
from ros2_densematch.cli.pair_masks import PairMasks
from ros2_densematch.cli.pairs import Pair
from ros2_densematch.cli.progress import progress_counter
from ros2_densematch.files.results_folder import ResultsFolder

if TYPE_CHECKING:
    from ros2_densematch.arrays import Image
    from ros2_densematch.configuration import Configuration
    from ros2_densematch.geometry.correspondences import Correspondences
    from ros2_densematch.geometry.two_view import RelativePose
    from ros2_densematch.geometry.uncalibrated import UncalibratedPair
    from ros2_densematch.matchers.base import Encoding, Matcher

ENCODINGS_KEPT = 4  # a list often names the same image in neighbouring lines; a dense encoding may take 100 MB


@dataclass(frozen=True, eq=False)
class _Shown:
    """An image as the matcher sees it, and how it was turned for that (EXIF orientation, 1 = not)."""

    encoding: Encoding
    picture: Image
    orientation: int


@dataclass
class MatchJob:
    """Matches pairs and writes what comes of them.

    Attributes:
        configuration, matcher: what runs.
        cameras, masks: those that the options name.
        max_matches: of a pair; None = the configuration's.
        folder: for the results.
        single: one pair, whose problem is the command's, and whose picture is matches.png.
        encodings_kept: so many are in memory, for the pairs that follow.
        exported: names of what the command writes from the results, in the folder.
        fail_on_empty: whether a pair without a match to rely on makes the exit code 3.
        files: names of the files written.
    """

    configuration: Configuration
    matcher: Matcher
    cameras: PairCameras
    masks: PairMasks
    max_matches: int | None
    folder: Path
    single: bool = False
    fail_on_empty: bool = False
    encodings_kept: int = ENCODINGS_KEPT
    exported: tuple[str, ...] = ()
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._said: set[str] = set()
        self._encodings: OrderedDict[tuple[Path, bool, bool], _Shown] = OrderedDict()
        self._progress: MatchProgress | None = None
        self._begun = False

    def run(self, wanted: list[Pair], pictures: bool) -> int:
        """Matches all pairs, writes their files and the summary, and returns the exit code."""
        reads = {path for pair in wanted if not pair.problem for path in (pair.reference, pair.query)}
        self._results = ResultsFolder(self.folder, self._planned(wanted), reads)
        self._progress = None if self.single else self._progress_of(wanted, pictures)
        done = {} if self._progress is None else self._progress.rows
        rows: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        with stop_request() as stop, progress_counter("match", len(wanted), "pair") as counter:
            for pair in wanted:
                if stop:
                    break
                if pair.index in done:
                    rows.append(done[pair.index])
                    counter.advance()
                    continue
                try:
                    if pair.problem:
                        raise InputError(pair.problem)
                    rows.append(self._pair(pair, pictures))
                except (ValueError, OSError) as error:
                    if self.single or is_full(error):
                        raise
                    reason = one_line(error)
                    skipped.append({"index": pair.index, "line": pair.line, "reason": reason})
                    say(f"{pair.label} skipped: {reason}")
                counter.advance()
        self._begin()  # also where every pair was skipped
        self._summary(rows, skipped, len(wanted), stop.reason)
        self._results.finish()
        if self._progress is not None and not stop:
            self._progress.forget()
        for row in rows if len(wanted) == 1 else ():
            print(_sentence(row))
        counts = Counter(row["result"] for row in rows)
        extra = "".join(f", {counts[name]} {name}" for name in ("weak", "failed") if counts[name])
        print(
            f"{counts['matched']} of {len(wanted)} pairs matched{extra}, {len(skipped)} skipped; "
            f"results in {self.folder}"
        )
        if stop:
            return INTERRUPTED
        return BAD_INPUT if skipped else EMPTY if self.fail_on_empty and counts["failed"] else DONE

    def _progress_of(self, wanted: list[Pair], pictures: bool) -> MatchProgress:
        """What the same command did before it was stopped or killed, if it was."""
        from ros2_densematch import __version__
        from ros2_densematch.configuration import values_of

        cameras = [(c.size, c.K.tolist(), c.D.tolist()) for c in self.cameras.files or ()]
        settings = [
            __version__,
            identity_of(self.configuration, self.matcher),
            values_of(self.configuration),
            self.max_matches,
            [cameras, self.cameras.intrinsics, self.cameras.fov_deg],
            pictures,
            self.masks.files,
        ]
        progress = MatchProgress(self.folder, fingerprint_of(wanted, settings))
        if progress.rows:
            say(f"resuming: {len(progress.rows)} of {len(wanted)} pairs are already matched")
            self.files += progress.files
        return progress

    def _begin(self) -> None:
        """Before the first file: what an earlier run left is removed, unless this one goes on with it."""
        if self._begun:
            return
        self._begun = True
        if self._progress is not None and self._progress.rows:
            self._results.go_on()
        else:
            self._results.begin()
            (self.folder / PROGRESS).unlink(missing_ok=True)
        if self._progress is not None:
            self._progress.begin()

    def _planned(self, wanted: list[Pair]) -> list[str]:
        names = [f"{pair.index:06d}{suffix}" for pair in wanted for suffix in (".npz", ".png")]
        return [*names, "matches.png", *self.exported]

    def _result(self, matches: Correspondences, pose: RelativePose | None) -> str:
        """ "matched", "weak" (fewer than `min_inliers` matches to rely on) or "failed" (none, or none that agree)."""
        least = self.configuration.tracker.min_inliers
        if pose is not None:
            if len(matches) == 0 or not pose.ok:
                return "failed"
            return "matched" if pose.num_inliers >= least else "weak"
        expected = float(matches.score.sum())  # scores are probabilities: this many are right
        return "failed" if expected < 1.0 else "matched" if expected >= least else "weak"

    def _pair(self, pair: Pair, pictures: bool) -> dict[str, Any]:
        from ros2_densematch.evaluation.pictures import match_picture, with_caption, with_legend
        from ros2_densematch.geometry.orientation import back, turned_matches
        from ros2_densematch.geometry.two_view import estimate_relative_pose
        from ros2_densematch.geometry.uncalibrated import estimate_uncalibrated

        timings: dict[str, float] = {}
        turning = not self.cameras.given(pair)
        first = self._encode(pair.reference, timings, reference=True, turning=turning)
        second = self._encode(pair.query, timings, reference=False, turning=turning)
        start = time.perf_counter()
        settings = self.configuration.tracker
        upright = self.matcher.match(
            first.encoding, second.encoding, max_matches=self.max_matches or settings.max_matches, seed=settings.seed
        )
        matches = turned_matches(upright, back(first.orientation), back(second.orientation))
        timings["match"] = (time.perf_counter() - start) * 1e3
        known = self.cameras.of(pair, matches.reference_size, matches.query_size)
        self._doubt(pair, known)
        pose, uncalibrated = None, None
        start = time.perf_counter()
        if known is not None:
            pose = estimate_relative_pose(matches, *known.pair, config=settings.pose, seed=settings.seed)
        if known is None or known.guess:
            uncalibrated = estimate_uncalibrated(matches, seed=settings.seed)
        timings["pose"] = (time.perf_counter() - start) * 1e3
        name = f"{pair.index:06d}"
        self._begin()
        _write_npz(self.folder / f"{name}.npz", matches, known, pose, uncalibrated)
        row = {
            **_row(pair, matches, pose, timings),
            "intrinsics": None if known is None else known.source,
            "uncalibrated": None if uncalibrated is None else _uncalibrated_row(uncalibrated),
            "result": self._result(matches, pose if uncalibrated is None else None),
        }
        files = [f"{name}.npz"]
        if pictures:
            agree = uncalibrated.inliers if uncalibrated is not None else pose.inliers if pose is not None else None
            picture = match_picture(first.picture, second.picture, upright, agree)
            picture = with_legend(picture, outliers=agree is not None)
            facts = f"{self.matcher.name} ({self.configuration.preset}): {_sentence(row)}"
            files.append("matches.png" if self.single else f"{name}.png")
            _write_picture(self.folder / files[-1], with_caption(picture, facts))
        self.files += files
        if self._progress is not None:
            self._progress.add(row, files)
        return row

    def _doubt(self, pair: Pair, known: KnownCameras | None) -> None:
        """Says once for each camera what is implausible about it."""
        from ros2_densematch.geometry.plausibility import calibration_doubts

        for camera in () if known is None or known.guess else known.pair:
            for doubt in calibration_doubts(camera):
                warning = f"warning: {self.cameras.origin(pair)}: {doubt}"
                if warning not in self._said:
                    self._said.add(warning)
                    say(warning)

    def _encode(self, path: Path, timings: dict[str, float], *, reference: bool, turning: bool) -> _Shown:
        from ros2_densematch.files.exif import read_exif
        from ros2_densematch.geometry.orientation import turned_picture
        from ros2_densematch.io.sources.files import read_image

        key = (path, reference, turning)
        if key not in self._encodings:
            orientation = read_exif(path).orientation if turning else 1
            stored = read_image(path)
            size = stored.shape[1], stored.shape[0]
            mask = self.masks.of(path, size, orientation, reference=reference)
            picture = turned_picture(stored, orientation)
            start = time.perf_counter()
            encoding = self.matcher.encode(picture, reference=reference, mask=mask)
            timings["encode"] = timings.get("encode", 0.0) + (time.perf_counter() - start) * 1e3
            self._encodings[key] = _Shown(encoding, picture, orientation)
            if len(self._encodings) > self.encodings_kept:
                self._encodings.popitem(last=False)
        return self._encodings[key]

    def _summary(self, rows: list[dict[str, Any]], skipped: list[dict[str, Any]], total: int, stop: str | None) -> None:
        from ros2_densematch.evaluation.summary import stage_times, versions, write_json

        summary = {
            "command": "match",
            "versions": versions(),
            "matcher": matcher_facts(self.configuration, self.matcher),
            "estimator": estimator_facts(self.configuration),
            "total": total,
            "matched": sum(row["result"] == "matched" for row in rows),
            "weak": sum(row["result"] == "weak" for row in rows),
            "failed": sum(row["result"] == "failed" for row in rows),
            "skipped": skipped,
            "stopped_early": stop,
            "timings_ms": stage_times([row["timings_ms"] for row in rows]),
            "pairs": rows,
            "files": [*self.files, "summary.json", *(self.exported if self.files else ())],
        }
        write_json(self.folder / "summary.json", summary)


def _row(pair: Pair, matches: Correspondences, pose: RelativePose | None, timings: dict[str, float]) -> dict[str, Any]:
    """One entry of `pairs` in summary.json."""
    row: dict[str, Any] = {
        "index": pair.index,
        "reference": str(pair.reference),
        "query": str(pair.query),
        "matches": len(matches),
        "overlap": float(matches.overlap),
        "inliers": None,
        "geometry": None,
        "status": "no camera is known, so no pose was estimated" if pose is None else pose.status,
        "rotation_error_deg": None,
        "translation_error_deg": None,
        "timings_ms": {stage: round(value, 3) for stage, value in timings.items()},
    }
    if pose is not None:
        row["inliers"] = pose.num_inliers
        row["geometry"] = pose.geometry.name
        if pair.T_query_from_reference is not None:
            row |= _errors(pose, pair.T_query_from_reference)
    return row


def _uncalibrated_row(pair: UncalibratedPair) -> dict[str, Any]:
    """What a pair without calibration gives, for summary.json."""
    return {
        "kind": pair.kind,
        "status": pair.status,
        "fundamental": None if pair.fundamental is None else pair.fundamental.tolist(),
        "homography": None if pair.homography is None else pair.homography.tolist(),
        "fundamental_inliers": int(pair.fundamental_inliers.sum()),
        "homography_inliers": int(pair.homography_inliers.sum()),
    }


def _errors(pose: RelativePose, truth: Any) -> dict[str, float | None]:
    import numpy as np

    from ros2_densematch.geometry.poses import direction_angle_deg, rotation_angle_deg

    T = pose.T_query_from_reference
    if not pose.ok:
        return {"rotation_error_deg": None, "translation_error_deg": None}
    # The sign of the translation is known (points lie in front of both cameras), so the error may reach 180 degrees.
    known = pose.scale.name != "NONE" and np.linalg.norm(truth[:3, 3]) > 0
    return {
        "rotation_error_deg": rotation_angle_deg(T[:3, :3], truth[:3, :3]),
        "translation_error_deg": direction_angle_deg(T[:3, 3], truth[:3, 3]) if known else None,
    }


def _sentence(row: dict[str, Any]) -> str:
    counted = f"{row['matches']} matches"
    if row.get("uncalibrated"):
        counted += f" (no camera: {row['uncalibrated']['status']})"
    if row["inliers"] is not None:
        counted = f"{row['inliers']} inliers of {counted}, {row['geometry']}"
    if row.get("uncalibrated") and row["intrinsics"]:
        counted += f" with the {row['intrinsics']}"
    return f"{counted}, overlap {row['overlap']:.2f}"


def _write_picture(path: Path, picture: Image) -> None:
    import cv2

    from ros2_densematch.files.atomic import write_bytes

    ok, data = cv2.imencode(".png", picture[..., ::-1])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode {path}")
    write_bytes(path, data.tobytes())


def _write_npz(
    path: Path,
    matches: Correspondences,
    cameras: KnownCameras | None,
    pose: RelativePose | None,
    uncalibrated: UncalibratedPair | None,
) -> None:
    """The arrays of a pair (docs/formats.md), written in one step."""
    import io

    import numpy as np

    from ros2_densematch.files.atomic import write_bytes

    arrays: dict[str, Any] = {
        "reference_xy": matches.reference_xy,
        "query_xy": matches.query_xy,
        "score": matches.score,
        "overlap": np.float32(matches.overlap),
        "reference_size": np.array(matches.reference_size, np.int32),
        "query_size": np.array(matches.query_size, np.int32),
    }
    if cameras is not None:
        arrays["intrinsics"] = np.array("guess" if cameras.guess else "given")
        if all(camera.distortion_model == "none" for camera in cameras.pair):
            arrays["reference_K"], arrays["query_K"] = (camera.K for camera in cameras.pair)
    if matches.precision is not None:
        arrays["precision"] = matches.precision
    if pose is not None:
        arrays["T_query_from_reference"] = pose.T_query_from_reference
        arrays["covariance"] = pose.covariance
        arrays["inliers"] = pose.inliers
        arrays["geometry"] = np.array(pose.geometry.name)
        arrays["scale"] = np.array(pose.scale.name)
        arrays["scale_std"] = np.float64(pose.scale_std)
        arrays["median_epipolar_px"] = np.float64(pose.median_epipolar_px)
        arrays["median_triangulation_deg"] = np.float64(pose.median_triangulation_deg)
        arrays["status"] = np.array(pose.status)
    if uncalibrated is not None and uncalibrated.fundamental is not None:
        arrays["uncalibrated"] = np.array(uncalibrated.kind)
        arrays["fundamental"] = uncalibrated.fundamental
        arrays["homography"] = uncalibrated.homography
        arrays["fundamental_inliers"] = uncalibrated.fundamental_inliers
        arrays["homography_inliers"] = uncalibrated.homography_inliers
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
