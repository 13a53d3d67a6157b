"""Twenty small recordings: eighteen rendered bags, one damaged, one with far more frames than the time limit allows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from ros2_densematch.simulation.bag import write_flight_bag
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop

WHOLE, FRAMES, ENDLESS = 18, 4, 20_000


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bag_00 to bag_17, damaged and endless."""
    folder = tmp_path_factory.mktemp("fleet")
    scene, camera, flight = workshop(), demo_camera(160, 120), demo_flight()
    for i in range(WHOLE):
        part = slice(3 * i, 3 * i + FRAMES)
        piece = replace(flight, stamps_ns=flight.stamps_ns[part], T_world_from_camera=flight.T_world_from_camera[part])
        write_flight_bag(folder / f"bag_{i:02d}", scene, camera, piece, Sensor())
    damaged = folder / "damaged"
    damaged.mkdir()
    whole = folder / "bag_00"
    (damaged / "metadata.yaml").write_text((whole / "metadata.yaml").read_text())
    (damaged / next(whole.glob("*.mcap")).name).write_bytes(b"\x00" * 4096)
    endless = folder / "endless"
    endless.mkdir()
    cv2.imwrite(str(endless / "a.png"), render(scene, camera, flight.T_world_from_camera[0]).image[..., ::-1])
    rows = [f"{i},{1_000_000_000 + 100_000_000 * i},a.png,,,,,,,," for i in range(ENDLESS)]
    (endless / "frames.csv").write_text("\n".join(["index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw", *rows]))
    calibration = {"width": 160, "height": 120, "K": camera.K.ravel().tolist(), "distortion_model": "none", "D": []}
    (endless / "camera.json").write_text(json.dumps(calibration))
    return folder
