"""Hundreds of random damages of small samples of every kind: never a traceback, a hang, a death or much memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import recording_corpus as corpus

from ros2_densematch.geometry.camera import Camera

COUNT = 300


def samples(folder: Path) -> None:
    """Bags of every container, videos, pictures, a calibration and a sequence."""
    for i, container in enumerate(corpus.CONTAINERS):
        (folder / container).mkdir(parents=True)
        corpus.write(folder / container, corpus.Description(container, corpus.ENCODINGS[i], "regular", "good"))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    for suffix in (".jpg", ".png", ".bmp", ".tif", ".webp"):
        cv2.imwrite(str(folder / f"picture{suffix}"), image)
    for suffix, code in ((".mp4", "mp4v"), (".mkv", "MJPG"), (".avi", "MJPG"), (".webm", "VP80"), (".wmv", "WMV2")):
        writer = cv2.VideoWriter(str(folder / f"video{suffix}"), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
        for shift in range(12):
            writer.write(np.roll(image, shift, axis=1))
        writer.release()
    Camera.from_matrix(np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), 64, 48).to_yaml(folder / "camera.yaml")
    sequence = folder / "sequence"
    sequence.mkdir()
    cv2.imwrite(str(sequence / "0.png"), image)
    (sequence / "frames.csv").write_text("timestamp_ns,image,depth\n1000000000,0.png,\n1100000000,0.png,\n")
    (sequence / "camera.json").write_text('{"width": 64, "height": 48, "K": [60, 0, 32, 0, 60, 24, 0, 0, 1]}')


def test_random_damage_never_breaks_the_reading(tmp_path: Path, repository: Path) -> None:
    samples(tmp_path)
    command = [sys.executable, repository / "benchmarks" / "damage.py", tmp_path, "--count", COUNT]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=repository, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{COUNT} damages of ")
