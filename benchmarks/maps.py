"""A map from a folder of images: COLMAP's reconstruction from a matcher's matches, beside its own SIFT's.

    python benchmarks/maps.py IMAGES --K fx,fy,cx,cy --out out/maps

Every matcher runs as `densematch match --folder IMAGES --exhaustive --export colmap`; pycolmap reconstructs from the
database. `colmap-sift` is COLMAP's own extraction and exhaustive matching of the same images with the same camera.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--K", dest="intrinsics", required=True, help="fx,fy,cx,cy of all images, in pixels")
    parser.add_argument("--matchers", default="gcm,sift,colmap-sift")
    parser.add_argument("--pairs", default="--exhaustive", help="--exhaustive, --window=N or --retrieve=K")
    parser.add_argument("--out", type=Path, default=Path("out/maps"))
    given = parser.parse_args()
    print("| matches | registered images | points | observations a point | reprojection error |")
    print("| --- | --- | --- | --- | --- |")
    for name in given.matchers.split(","):
        folder = given.out / name
        folder.mkdir(parents=True, exist_ok=True)
        if name == "colmap-sift":
            database = own_sift(folder, given.images, given.intrinsics)
        else:
            command = ["match", "--folder", str(given.images), given.pairs, "--matcher", name, "--export", "colmap"]
            subprocess.run(
                [sys.executable, "-m", "ros2_densematch", *command, "--K", given.intrinsics, "--out", str(folder)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            database = folder / "database.db"
        print(row(name, reconstruct(database, given.images, folder / "map")), flush=True)


def own_sift(folder: Path, images: Path, intrinsics: str) -> Path:
    """COLMAP's own features and matches."""
    database = folder / "database.db"
    database.unlink(missing_ok=True)
    fx, fy, cx, cy = (float(v) for v in intrinsics.split(","))
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model, reader.camera_params = "PINHOLE", f"{fx},{fy},{cx + 0.5},{cy + 0.5}"
    pycolmap.set_random_seed(0)
    pycolmap.extract_features(
        database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader, device=pycolmap.Device.cpu
    )
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    return database


def reconstruct(database: Path, images: Path, folder: Path) -> Any:
    """The largest map, with intrinsics as they were given; None where there is none."""
    folder.mkdir(exist_ok=True)
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    options.random_seed = 0
    options.num_threads = 1
    maps = pycolmap.incremental_mapping(database, images, folder, options)
    return max(maps.values(), key=lambda m: m.num_reg_images(), default=None)


def row(name: str, found: Any) -> str:
    """One line of the table; the error is the mean over all observations."""
    if found is None:
        return f"| {name} | 0 | | | |"
    length, error = found.compute_mean_track_length(), found.compute_mean_reprojection_error()
    assert np.isfinite(error)
    return f"| {name} | {found.num_reg_images()} | {found.num_points3D()} | {length:.2f} | {error:.3f} px |"


if __name__ == "__main__":
    main()
