"""Draws what ships in ros2_densematch/sample: two photos of a rendered room, and a short bag with true poses.

python scripts/draw_samples.py
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2

from ros2_densematch.simulation.bag import write_flight_bag
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop

FOLDER = Path(__file__).resolve().parent.parent / "ros2_densematch" / "sample"
PHOTO_SIZE, PHOTOS = (640, 480), {"a.jpg": 40, "b.jpg": 58}
BAG_SIZE, FRAMES = (320, 240), 24


def main() -> None:
    scene, flight, sensor = workshop(0), demo_flight(), Sensor(seed=0)
    for name, index in PHOTOS.items():
        picture = render(scene, demo_camera(*PHOTO_SIZE), flight.T_world_from_camera[index]).image
        cv2.imwrite(str(FOLDER / name), sensor.expose(picture, index)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    every = slice(0, 3 * FRAMES, 3)
    short = replace(
        flight,
        stamps_ns=flight.stamps_ns[every],
        T_world_from_camera=flight.T_world_from_camera[every],
        stretch=flight.stretch[every],
        rate_hz=flight.rate_hz / 3,
    )
    shutil.rmtree(FOLDER / "flight", ignore_errors=True)
    quiet = Sensor(noise=1.0, seed=0)
    write_flight_bag(FOLDER / "flight", scene, demo_camera(*BAG_SIZE), short, quiet, jpeg_quality=80)


if __name__ == "__main__":
    main()
