"""InLoc and Aachen Day-Night go out in hloc's form, on a tiny folder of Aachen's layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from ros2_densematch.cli.main import main
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop


@pytest.mark.parametrize("name", ["aachen", "inloc"])
def test_the_command_that_serves_them_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "pose", name, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "match --pairs LIST --root IMAGES --export hloc" in capsys.readouterr().err
    assert main(["eval", "pose", name, "--download-help"]) == 0
    text = capsys.readouterr().out
    assert f"{name} (match --export hloc)" in text
    assert "research only" in text


def test_pairs_of_hloc_go_in_and_features_and_matches_under_its_names_come_out(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    names = ("query/night/a.png", "db/1.png", "db/2.png")
    for name, frame in zip(names, (20, 22, 24), strict=True):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        image = render(workshop(), demo_camera(160, 120), demo_flight().T_world_from_camera[frame]).image
        cv2.imwrite(str(tmp_path / "images" / name), image[..., ::-1])
    (tmp_path / "pairs.txt").write_text("query/night/a.png db/1.png\nquery/night/a.png db/2.png\n")
    words = ["--pairs", tmp_path / "pairs.txt", "--root", tmp_path / "images", "--matcher", "sift", "--export", "hloc"]
    assert main(["match", *map(str, words), "--out", str(tmp_path / "out")]) == 0
    with h5py.File(tmp_path / "out/hloc/features.h5") as features, h5py.File(tmp_path / "out/hloc/matches.h5") as found:
        assert all(len(features[name]["keypoints"]) > 20 for name in names)
        pair = found["query-night-a.png"]["db-2.png"]
        assert (pair["matches0"][:] >= 0).sum() > 20
        assert len(pair["matches0"]) == len(features["query/night/a.png"]["keypoints"])
