"""Both stages from the command line: what is stored, resumed, refused, counted, and that scoring is repeatable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ros2_densematch.cli.main import main
from ros2_densematch.evaluation.predictions import entries
from ros2_densematch.evaluation.predictions.store import read_prediction

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["eval", *(str(word) for word in words)])
        text = capsys.readouterr()
        return code, text.out, text.err

    return command


@pytest.fixture(scope="module")
def finished(rendered_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main(["eval", "pose", str(rendered_pairs), "--matcher", "sift", "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def scores(out: Path) -> dict[str, Any]:
    return json.loads((out / "scores.json").read_text())


def forbid_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no matcher may be loaded")

    monkeypatch.setattr(entries, "load_matcher", refuse)


def test_two_columns_by_default_with_estimator_threshold_and_size(finished: Path) -> None:
    entry = scores(finished)["entries"][0]
    settings = [group["setting"] for group in entry["groups"].values() if group["title"] == "Pose"]
    assert settings == [
        "PoseLib 1 px, images at longer side 640",
        "OpenCV RANSAC 0.5 px, images at longer side 640",
    ]
    figure = entry["groups"]["poselib 1"]["figures"]["auc_10"]
    assert figure["interval_95"][0] <= figure["value"] <= figure["interval_95"][1]
    assert figure["value"] > 70  # rendered without noise
    assert entry["pairs"] == {"scored": 3, "failed": 0, "missing": 0}


def test_scoring_twice_gives_identical_json_and_runs_no_matcher(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "scores.json").read_bytes()
    (copy / "scores.json").unlink()
    forbid_matching(monkeypatch)
    assert run("score", copy)[0] == 0
    assert (copy / "scores.json").read_bytes() == before


def test_another_estimator_and_the_sweep_use_the_same_predictions(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_matching(monkeypatch)
    assert run("score", copy, "--estimator", "own", "--threshold", "2")[0] == 0
    assert [k for k in scores(copy)["entries"][0]["groups"] if k.startswith("own")] == ["own 2"]
    code, out, _ = run("score", copy, "--estimator", "poselib", "--threshold", "auto")
    assert code == 0
    assert "chosen on the test data" in out
    assert len(scores(copy)["entries"][0]["groups"]["poselib auto"]["sweep"]) == 6


def test_a_damaged_prediction_is_made_again_and_the_rest_is_used(copy: Path, run: Run, rendered_pairs: Path) -> None:
    whole = copy / "predictions" / "sift" / "000001.npz"
    kept, before = read_prediction(whole, "rendered/3"), (copy / "scores.json").read_bytes()
    whole.write_bytes(whole.read_bytes()[:200])
    code, _, err = run("pose", rendered_pairs, "--matcher", "sift", "--out", copy)
    assert code == 0
    assert "1 damaged predictions were made again" in err
    assert "2 stored predictions used" in err
    again = read_prediction(whole, "rendered/3")
    np.testing.assert_array_equal(again.reference_xy, kept.reference_xy)

    def without_times(data: bytes) -> dict[str, Any]:
        content = json.loads(data)
        del content["entries"][0]["groups"]["cost"]
        return content

    assert without_times((copy / "scores.json").read_bytes()) == without_times(before)


def test_a_prediction_of_another_pair_is_not_taken(copy: Path, run: Run, rendered_pairs: Path) -> None:
    folder = copy / "predictions" / "sift"
    shutil.copy(folder / "000000.npz", folder / "000002.npz")
    assert "1 damaged" in run("pose", rendered_pairs, "--matcher", "sift", "--out", copy)[2]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--protocol", "lightglue"), "export"),
        (("--matcher", "opencv-orb"), "also contains an evaluation of sift"),
    ],
)
def test_two_settings_in_one_folder_are_refused(
    copy: Path, run: Run, rendered_pairs: Path, words: tuple[str, ...], reason: str
) -> None:
    matcher = () if "--matcher" in words else ("--matcher", "sift")
    code, _, err = run("pose", rendered_pairs, *words, *matcher, "--out", copy)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1


def test_other_data_and_a_damaged_folder_are_refused(
    copy: Path, run: Run, rendered_pairs: Path, tmp_path: Path
) -> None:
    fewer = Path(shutil.copytree(rendered_pairs, tmp_path / "fewer"))
    lines = (fewer / "pairs.txt").read_text().splitlines()
    (fewer / "pairs.txt").write_text("\n".join(lines[:2]) + "\n")
    assert "data" in run("pose", fewer, "--matcher", "sift", "--out", copy)[2]
    (copy / "evaluation.json").write_text('{"half')
    code, _, err = run("pose", rendered_pairs, "--matcher", "sift", "--out", copy)
    assert code == 2
    assert "damaged" in err


def test_the_evaluation_before_is_replaced_whole_where_that_is_asked_for(
    copy: Path, run: Run, rendered_pairs: Path, tmp_path: Path
) -> None:
    (copy / "notes.txt").write_text("mine")
    fewer = Path(shutil.copytree(rendered_pairs, tmp_path / "fewer"))
    lines = (fewer / "pairs.txt").read_text().splitlines()
    (fewer / "pairs.txt").write_text("\n".join(lines[:2]) + "\n")
    assert run("pose", fewer, "--matcher", "sift", "--out", copy, "--no-resume")[0] == 0
    assert scores(copy)["entries"][0]["pairs"] == {"scored": 1, "failed": 0, "missing": 0}
    assert [file.name for file in (copy / "predictions" / "sift").glob("*.npz")] == ["000000.npz"]
    assert (copy / "notes.txt").read_text() == "mine"


def test_an_evaluation_that_is_stopped_leaves_no_scores_of_the_one_before(
    copy: Path, run: Run, rendered_pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ros2_densematch.cli.eval_run.export_all", stop)
    run("compare", "sift", "opencv-orb", "--on", rendered_pairs, "--peers", "none", "--out", copy)
    assert {path.name for path in copy.iterdir()} == {"evaluation.json", "predictions"}


def test_files_that_no_evaluation_wrote_are_not_replaced(run: Run, rendered_pairs: Path, tmp_path: Path) -> None:
    for name in ("report.html", "predictions"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        for extra in ((), ("--no-resume",)):
            code, _, err = run("pose", rendered_pairs, "--matcher", "sift", "--out", folder, *extra)
            assert (code, "was not written by an evaluation" in err) == (2, True)
        assert {path.name for path in folder.iterdir()} == {name}


def test_missing_pairs_are_counted_and_left_out(run: Run, rendered_pairs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(rendered_pairs, tmp_path / "holes"))
    (folder / "images" / "28.png").write_bytes(b"damaged")
    code, out, _ = run("pose", folder, "--matcher", "sift", "--out", tmp_path / "out")
    assert code == 2
    assert "INCOMPLETE" in out
    entry = scores(tmp_path / "out")["entries"][0]
    assert entry["pairs"] == {"scored": 1, "failed": 0, "missing": 2}
    assert entry["incomplete"]
    assert "incomplete: 2 of 3 pairs are missing" in (tmp_path / "out" / "report.html").read_text()
    shutil.copy(rendered_pairs / "images" / "28.png", folder / "images" / "28.png")  # restored: resumed
    assert run("pose", folder, "--matcher", "sift", "--out", tmp_path / "out")[0] == 0
    assert scores(tmp_path / "out")["entries"][0]["pairs"] == {"scored": 3, "failed": 0, "missing": 0}


def test_a_comparison_is_one_small_page_that_opens_without_a_server(
    run: Run, rendered_pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("compare", "sift", "opencv-orb", "--on", rendered_pairs, "--peers", "none", "--out", out)[0] == 0
    page = (out / "report.html").read_text()
    assert len(page.encode()) < 5_000_000
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    for words in (
        "sift",
        "opencv-orb",
        "PoseLib 1 px",
        "How to read this page",
        "worst pairs",
        "Accuracy against time",
    ):
        assert words in page
    markdown = (out / "report.md").read_text()
    assert "| opencv-orb |" in markdown
    assert "95 %" in page
    # a third entry joins; the two are not matched again
    code, _, err = run(
        "compare", "sift", "opencv-orb", "opencv-lk", "--on", rendered_pairs, "--peers", "none", "--out", out
    )
    assert code == 0
    assert "sift: 3 stored predictions used, 0 pairs matched now" in err


def test_the_classical_peers_stand_beside_ours_by_default() -> None:
    from ros2_densematch.cli.eval_run import with_peers

    assert with_peers(["gcm"], "opencv") == (
        "gcm",
        "opencv-sift",
        "opencv-orb",
        "opencv-akaze",
        "opencv-dis",
        "opencv-lk",
    )
    assert "opencv-sift" not in with_peers(["sift"], "opencv")


def test_download_help_downloads_nothing_and_names_licences(run: Run) -> None:
    code, out, _ = run("pose", "scannet1500", "--download-help")
    assert code == 0
    assert "Terms of Use" in out
    assert "research only" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--protocol", "colmap"), "unknown protocol 'colmap'"),
        (("--estimator", "ransac"), "unknown estimator 'ransac'"),
        (("--threshold", "-1"), "'-1'"),
        (("--matcher", "superglue"), "unknown matcher 'superglue'"),
    ],
)
def test_bad_options_are_named(
    run: Run, rendered_pairs: Path, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    code, _, err = run("pose", rendered_pairs, "--out", tmp_path / "o", *words)
    assert code == 2
    assert reason in err
