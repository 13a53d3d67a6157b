"""How far the overlap that matches show is from the true one, on rendered pairs whose geometry is known.

    python benchmarks/overlap.py [--pairs 40] [--matchers gcm sift condl] [--thin 1 8 40]

Two views of one of two scenes, at random places: up to a metre apart, turned by up to 35 degrees, rolled by up to 30,
zoomed by up to 1.6, through a sensor with noise. The true overlap is the share of the reference's pixels whose point
lies inside the query and is not hidden there. A fifth of the pairs are views of two different scenes: they have none.
`--thin N` keeps every Nth match only, to see what the density of matches does to the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch import load_matcher
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.matchers.overlap import overlap_of_matches
from ros2_densematch.simulation.flight import look
from ros2_densematch.simulation.ground_truth import warp
from ros2_densematch.simulation.passes import scene_bounds
from ros2_densematch.simulation.renderer import Rendering, render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import tabletop, workshop

_SIZE = (320, 240)
_LEAST_DEPTH = 0.4  # metres that the nearest hundredth of the pixels keeps


@dataclass(frozen=True)
class Pair:
    """Two images and the share of the first that the second shows."""

    reference: NDArray[np.uint8]
    query: NDArray[np.uint8]
    overlap: float


def camera(zoom: float) -> Camera:
    width, height = _SIZE
    focal = 0.75 * width * zoom
    return Camera.from_matrix(np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]), *_SIZE)


def view(scene: Scene, rng: np.random.Generator, zoom: float, near: NDArray[np.float64] | None = None) -> tuple:
    """Position and angles of a free place, its camera, pose and picture; near another place where one is given."""
    low, high = scene_bounds(scene)
    while True:
        if near is None:
            state = np.concatenate([rng.uniform(low, high), [rng.uniform(-0.6, 0.6), 0.08, 0.0]])
        else:
            spread = (0.5, 0.5, 0.2, np.deg2rad(20), np.deg2rad(8), np.deg2rad(15))
            state = near + np.clip(rng.normal(size=6), -2, 2) * spread
        pose = look(state[:3], *state[3:])
        depth = render(scene, camera(zoom).resized(64, 48), pose).depth
        if (depth > 0).mean() > 0.9 and np.quantile(depth[depth > 0], 0.01) > _LEAST_DEPTH:
            return state, pose, render(scene, camera(zoom), pose)


def pairs(count: int, seed: int = 0) -> Iterator[Pair]:
    """Pairs of known overlap; one in five shows two different scenes."""
    rng = np.random.default_rng(seed)
    scenes = [workshop(seed), tabletop(seed)]
    for i in range(count):
        own = scenes[i % 2]
        zoom = float(rng.choice([1.0, 1.0, 1.3, 1.6])) ** int(rng.choice([-1, 1]))
        state, pose0, first = view(own, rng, 1.0)
        sensor = Sensor(noise=float(rng.uniform(1, 4)), seed=i)
        if i % 5 == 4:
            _, _, second = view(scenes[1 - i % 2], rng, zoom)
            overlap = 0.0
        else:
            _, pose1, second = view(own, rng, zoom, state)
            overlap = true_overlap(first, camera(1.0), pose0, second, camera(zoom), pose1)
        yield Pair(sensor.expose(first.image, 0), sensor.expose(second.image, 1), overlap)


def true_overlap(first: Rendering, camera0: Camera, pose0: NDArray, second: Rendering, camera1: Camera, pose1: NDArray):
    _, visible = warp(first.depth, camera0, pose0, second.depth, camera1, pose1, tolerance=0.03)
    return float(visible.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matchers", nargs="+", default=["gcm", "sift", "condl"])
    parser.add_argument("--thin", nargs="+", type=int, default=[1, 8, 40], help="keep every Nth match")
    parser.add_argument("--show", action="store_true", help="a line for every pair")
    arguments = parser.parse_args()
    found = list(pairs(arguments.pairs, arguments.seed))
    true = np.array([pair.overlap for pair in found])
    print(f"{len(found)} pairs, true overlap {np.round(np.quantile(true[true > 0], [0, 0.25, 0.5, 0.75, 1]), 2)}")
    for name in arguments.matchers:
        matcher = load_matcher(name, device="cpu", preset="base" if name == "sift" else "turbo")
        rows = []
        for pair in found:
            encodings = matcher.encode(pair.reference, reference=True), matcher.encode(pair.query)
            raw = matcher._match(*encodings, max_matches=5000, seed=0)
            x0, x1 = raw.seen or (raw.reference_xy, raw.query_xy)
            rows.append([(len(x0[::n]), overlap_of_matches(x0[::n], x1[::n], *encodings)) for n in arguments.thin])
        values = np.array(rows)  # (pairs, thinnings, (matches, overlap))
        if arguments.show:
            for truth, row in zip(true, rows, strict=True):
                print(f"  {truth:.2f}: " + ", ".join(f"{overlap:.2f} ({count})" for count, overlap in row))
        report(name, arguments.thin, true, values)


def report(name: str, thin: list[int], true: NDArray, values: NDArray) -> None:
    for k, every in enumerate(thin):
        counts, overlap = values[:, k].T
        same = true > 0.15
        error = overlap[same] - true[same]
        print(
            f"{name:6} every {every:3}: median of {np.median(counts):5.0f} matches; mean error {error.mean():+.3f}, "
            f"mean absolute {np.abs(error).mean():.3f}, none found {int((overlap[same] == 0).sum())} of {same.sum()}; "
            f"different scenes at most {overlap[true == 0].max():.3f}"
        )


if __name__ == "__main__":
    main()
