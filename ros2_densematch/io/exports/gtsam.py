"""Relative poses as a factor graph for GTSAM, and as a g2o file where lengths are metres.

GTSAM's pose of a frame is T_world_from_camera; a factor between keyframe and frame measures T_keyframe_from_frame; its
tangent space is (rotation, translation), a perturbation on the right. A relative pose of unknown length (UNIT) becomes
a constraint by its essential matrix, five degrees of freedom, and one without a translation measures the rotation only:
no edge has a length that nobody measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.files.atomic import write_text
from ros2_densematch.files.results_folder import make_room, read_json
from ros2_densematch.geometry import poses
from ros2_densematch.io.exports.replay_result import (
    RelativeRow,
    read_relative_poses,
    replay_summary,
    trajectory_poses,
)

_FILES = ("factors.json", "graph.g2o")
_CONVENTION = "T_key1_from_key2; covariance of (rotation, translation), perturbation on the right"
_KINDS = {"METRIC": "between", "UNIT": "essential", "NONE": "rotation"}


@dataclass(frozen=True, eq=False)
class Factor:
    """A measurement between two frames.

    Attributes:
        kind: "between" (a pose in metres), "essential" (rotation and direction of translation) or "rotation".
        key1, key2: frame indices of keyframe and frame.
        T: float64 (4, 4) T_keyframe_from_frame; the translation is a direction of length 1 for "essential", and zero
            for "rotation".
        covariance: float64 (6, 6) of (rotation, translation), perturbation on the right: T Exp(xi). For "essential" the
            last three rows are those of the direction in the keyframe's axes (rank 2), for "rotation" they are zero.
    """

    kind: str
    key1: int
    key2: int
    T: Float64
    covariance: Float64


@dataclass(frozen=True, eq=False)
class FactorGraph:
    """The factors of a replay, and first values.

    Attributes:
        factors: in the order of the frames.
        values: T_world_from_camera (4, 4) by frame index. Segments have no known relation: each is a graph of its own.
    """

    factors: Sequence[Factor]
    values: Mapping[int, Float64]


def factor_of(row: RelativeRow) -> Factor:
    """The measurement that a relative pose is."""
    T, left = poses.invert_with_covariance(row.T_query_from_reference, row.covariance)
    Rt = T[:3, :3].T
    kind = _KINDS[row.scale]
    J = np.zeros((6, 6))  # from (translation, rotation) on the left to (rotation, translation) on the right
    J[:3, 3:] = Rt
    if kind == "between":
        J[3:, :3] = Rt
    elif kind == "essential":
        length = float(np.linalg.norm(T[:3, 3]))
        T = T.copy()
        T[:3, 3] /= length
        J[3:, :3] = (np.eye(3) - np.outer(T[:3, 3], T[:3, 3])) / length
    else:
        T = poses.make_pose(T[:3, :3], np.zeros(3))
    return Factor(kind, row.reference, row.query, T, J @ left @ J.T)


def read_factor_graph(result: str | Path) -> FactorGraph:
    """The factor graph of a result folder of `densematch replay`.

    Raises:
        FileNotFoundError, ValueError: the folder is none.
    """
    folder = Path(result)
    summary = replay_summary(folder)
    rows = read_relative_poses(folder)
    world = trajectory_poses(folder, summary)
    index = {row.query_stamp_ns: row.query for row in rows} | {row.reference_stamp_ns: row.reference for row in rows}
    values = {index[stamp]: T for stamp, T in world.items() if stamp in index}
    factors = [factor_of(row) for row in rows]
    return FactorGraph([f for f in factors if f.key1 in values and f.key2 in values], values)


def to_gtsam(graph: FactorGraph) -> tuple[Any, Any]:
    """The graph as gtsam.NonlinearFactorGraph and gtsam.Values, without a prior: fix the first pose of each segment.

    Raises:
        ModuleNotFoundError: gtsam is not installed.
    """
    gtsam = import_module("gtsam")
    made, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    for key, T in graph.values.items():
        values.insert(key, gtsam.Pose3(T))
    for factor in graph.factors:
        made.add(_gtsam_factor(gtsam, factor))
    return made, values


def _gtsam_factor(gtsam: Any, factor: Factor) -> Any:
    if factor.kind == "essential":
        direction = gtsam.Unit3(factor.T[:3, 3])
        lift = np.zeros((5, 6))
        lift[:3, :3], lift[3:, 3:] = np.eye(3), direction.basis().T
        noise = gtsam.noiseModel.Gaussian.Covariance(_regular(lift @ factor.covariance @ lift.T))
        E = gtsam.EssentialMatrix(gtsam.Rot3(factor.T[:3, :3]), direction)
        return gtsam.EssentialMatrixConstraint(factor.key1, factor.key2, E, noise)
    if factor.kind == "between":
        noise = gtsam.noiseModel.Gaussian.Covariance(_regular(factor.covariance))
    else:
        whitening = np.zeros((6, 6))
        whitening[:3, :3] = np.linalg.cholesky(np.linalg.inv(_regular(factor.covariance[:3, :3]))).T
        noise = gtsam.noiseModel.Gaussian.SqrtInformation(whitening)  # knows nothing of the translation
    return gtsam.BetweenFactorPose3(factor.key1, factor.key2, gtsam.Pose3(factor.T), noise)


def _regular(covariance: Float64) -> Float64:
    """Symmetric, and invertible also where a direction is known exactly."""
    C = 0.5 * (covariance + covariance.T)
    return np.asarray(C + 1e-12 * max(float(np.trace(C)), 1e-6) * np.eye(len(C)), np.float64)


def write_gtsam(folder: Path, graph: FactorGraph) -> list[str]:
    """Writes factors.json (all factors and first values) and, where there are metric factors, graph.g2o with those;
    returns the names. GTSAM itself is not needed for that.

    Raises:
        ValueError: the graph holds no factor.
        ForeignFileError: one of these files exists and is no earlier export; nothing was written.
    """
    if not graph.factors:
        raise ValueError("the replay contains no relative pose between frames with a pose: nothing to export")
    before = read_json(folder / _FILES[0])
    make_room(folder, _FILES, ours=isinstance(before, dict) and before.get("convention") == _CONVENTION)
    content = {
        "convention": _CONVENTION,
        "values": [{"key": key, "T_world_from_camera": T.tolist()} for key, T in graph.values.items()],
        "factors": [
            {"kind": f.kind, "key1": f.key1, "key2": f.key2, "T": f.T.tolist(), "covariance": f.covariance.tolist()}
            for f in graph.factors
        ],
    }
    write_text(folder / _FILES[0], json.dumps(content, indent=1) + "\n")
    metric = [f for f in graph.factors if f.kind == "between"]
    if not metric:
        return [_FILES[0]]
    lines = [f"VERTEX_SE3:QUAT {key} {_pose_words(T)}" for key, T in graph.values.items()]
    for f in metric:
        information = np.linalg.inv(_regular(f.covariance))[[3, 4, 5, 0, 1, 2]][:, [3, 4, 5, 0, 1, 2]]
        numbers = " ".join(f"{v:.12g}" for v in information[np.triu_indices(6)])
        lines.append(f"EDGE_SE3:QUAT {f.key1} {f.key2} {_pose_words(f.T)} {numbers}")
    write_text(folder / _FILES[1], "\n".join(lines) + "\n")
    return list(_FILES)


def read_factors(path: str | Path) -> FactorGraph:
    """The graph of a factors.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        factors = [
            Factor(f["kind"], f["key1"], f["key2"], np.array(f["T"]), np.array(f["covariance"]))
            for f in content["factors"]
        ]
        values = {entry["key"]: np.array(entry["T_world_from_camera"]) for entry in content["values"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a factors.json of densematch ({type(error).__name__}: {error})") from None
    return FactorGraph(factors, values)


def _pose_words(T: Float64) -> str:
    numbers = (*T[:3, 3], *poses.quaternion_from_matrix(T))
    return " ".join(f"{v + 0.0:.12g}" for v in numbers)
