"""`densematch match --folder`: which pairs, going on after a stop, and the forms that hloc and COLMAP read."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.cli.folder_pairs import folder_pairs
from ros2_densematch.cli.match_progress import PROGRESS
from ros2_densematch.cli.pair_masks import PairMasks
from ros2_densematch.matchers.registry import load_matcher


@pytest.fixture
def images(flight: Path, tmp_path: Path) -> Path:
    """Four pictures of the rendered flight, two of them in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, place in ((0, ""), (2, ""), (4, "more/"), (6, "more/")):
        shutil.copy(flight / f"rgb/{number:06d}.png", folder / f"{place}{number}.png")
    return folder


def names_of(out: Path, images: Path) -> list[tuple[str, str]]:
    rows = json.loads((out / "summary.json").read_text("utf-8"))["pairs"]
    return [
        (Path(r["reference"]).relative_to(images).as_posix(), Path(r["query"]).relative_to(images).as_posix())
        for r in rows
    ]


ALL = ["0.png", "2.png", "more/4.png", "more/6.png"]


def test_neighbours_or_all(densematch, images: Path, tmp_path: Path) -> None:
    common = ("match", "--folder", images, "--matcher", "sift")
    outcome = densematch(*common, "--window", "1", "--out", tmp_path / "w")
    assert outcome.code == 0, outcome.err
    assert names_of(tmp_path / "w", images) == list(pairwise(ALL))
    assert not list((tmp_path / "w").glob("*.png"))
    outcome = densematch(*common, "--exhaustive", "--pictures", "--out", tmp_path / "e")
    assert outcome.code == 0, outcome.err
    assert sorted(names_of(tmp_path / "e", images)) == [(a, b) for i, a in enumerate(ALL) for b in ALL[i + 1 :]]
    assert len(list((tmp_path / "e").glob("*.png"))) == 6


@pytest.mark.parametrize("matcher", ["gcm", "sift"])
def test_retrieval_finds_the_images_of_the_same_scene(flight: Path, tmp_path: Path, matcher: str) -> None:
    """Two places in turn: the rendered flight, and a wall that passes by."""
    random = np.random.default_rng(5)
    other = cv2.GaussianBlur(random.integers(0, 255, (260, 360, 3), np.uint8), (0, 0), 2)
    other = cv2.normalize(other, None, 0, 255, cv2.NORM_MINMAX)
    files = []
    for number in (0, 2, 4):
        picture = cv2.imread(str(flight / f"rgb/{number:06d}.png"))
        for name, shown in (("a", picture), ("b", other[number : number + 240, :320])):
            files.append(tmp_path / f"{number}_{name}.png")
            cv2.imwrite(str(files[-1]), shown)
    pairs = folder_pairs(files, load_matcher(matcher), PairMasks(None, None), window=None, exhaustive=False, retrieve=2)
    assert len(pairs) == 6
    assert all(pair.reference.stem[-1] == pair.query.stem[-1] for pair in pairs)


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_matched(
    densematch, images: Path, tmp_path: Path
) -> None:
    (images / "3.png").write_text("no image")
    for number, way in enumerate((("--retrieve", "1"), ("--exhaustive",))):
        out = tmp_path / str(number)
        outcome = densematch("match", "--folder", images, "--matcher", "sift", *way, "--out", out)
        assert outcome.code == 2
        assert "3.png: this is not an image" in outcome.err
        assert {"0.png", "2.png"} <= {name for pair in names_of(out, images) for name in pair}


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been_stopped(
    densematch, images: Path, tmp_path: Path, monkeypatch
) -> None:
    command = ("match", "--folder", images, "--matcher", "sift", "--exhaustive", "--out")
    assert densematch(*command, tmp_path / "whole").code == 0
    from ros2_densematch.cli import match_job

    original, matched = match_job.MatchJob._pair, []

    def killed_at_the_third(self, pair, pictures):
        if len(matched) == 2:
            raise KeyboardInterrupt
        matched.append(pair.index)
        return original(self, pair, pictures)

    monkeypatch.setattr(match_job.MatchJob, "_pair", killed_at_the_third)
    assert densematch(*command, tmp_path / "out").code == 130
    with (tmp_path / "out" / PROGRESS).open("a") as stream:
        stream.write('[{"index": 2, "ref')  # killed in the middle of a line

    def noted(self, pair, pictures):
        matched.append(pair.index)
        return original(self, pair, pictures)

    monkeypatch.setattr(match_job.MatchJob, "_pair", noted)
    outcome = densematch(*command, tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "resuming: 2 of 6 pairs are already matched" in outcome.err
    assert matched == [0, 1, 2, 3, 4, 5]
    assert {f.name for f in (tmp_path / "out").iterdir()} == {f.name for f in (tmp_path / "whole").iterdir()}
    a, b = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("out", "whole"))
    assert names_of(tmp_path / "out", images) == names_of(tmp_path / "whole", images)
    assert sorted(a["files"]) == sorted(b["files"])
    for name in (f.name for f in (tmp_path / "whole").glob("*.npz")):
        with np.load(tmp_path / "out" / name) as one, np.load(tmp_path / "whole" / name) as two:
            np.testing.assert_array_equal(one["query_xy"], two["query_xy"])


def test_another_command_does_not_go_on_with_it(densematch, images: Path, tmp_path: Path, monkeypatch) -> None:
    from ros2_densematch.cli import match_job

    command = ("match", "--folder", images, "--matcher", "sift", "--window", "1", "--out", tmp_path / "out")
    original, calls = match_job.MatchJob._pair, []

    def counted(self, pair, pictures):
        if len(calls) == 1:
            calls.append(-1)
            raise KeyboardInterrupt
        calls.append(pair.index)
        return original(self, pair, pictures)

    monkeypatch.setattr(match_job.MatchJob, "_pair", counted)
    assert densematch(*command).code == 130
    outcome = densematch(*command, "--max-matches", "50")
    assert outcome.code == 0
    assert "resuming" not in outcome.err
    assert calls == [0, -1, 0, 1, 2]


@pytest.mark.parametrize("form", ["hloc", "colmap"])
def test_hloc_and_colmap_get_names_relative_to_the_folder(densematch, images: Path, tmp_path: Path, form: str) -> None:
    pytest.importorskip("h5py" if form == "hloc" else "pycolmap")
    outcome = densematch(
        "match", "--folder", images, "--matcher", "sift", "--window", "2", "--export", form,
        "--K", "260,260,159.5,119.5", "--out", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    if form == "hloc":
        assert (tmp_path / "out/hloc/pairs.txt").read_text().splitlines()[0] == "0.png 2.png"
    else:
        import pycolmap

        database = pycolmap.Database.open(tmp_path / "out/database.db")
        assert sorted(image.name for image in database.read_all_images()) == ALL
        assert database.num_cameras() == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--folder", "nowhere", "--exhaustive"), "there is no folder nowhere: check --folder"),
        (("--folder", ".", "--exhaustive"), "--folder . holds 0 images"),
        (("--window", "2"), "--window, --exhaustive and --retrieve choose pairs of --folder"),
        (("a.png", "b.png", "--folder", ".", "--exhaustive"), "--folder . was given together with images or --pairs"),
        (("a.png", "b.png", "--export", "nvm"), "--export nvm: choose hloc or colmap"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_written(densematch, tmp_path: Path, monkeypatch, words, message: str) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    outcome = densematch("match", *words, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_one_of_three_ways_to_choose_pairs_is_needed(densematch, images: Path, tmp_path: Path) -> None:
    for ways in ((), ("--window", "1", "--exhaustive")):
        outcome = densematch("match", "--folder", images, "--matcher", "sift", *ways, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert "one of --window N, --exhaustive and --retrieve K" in outcome.err


def test_a_mask_is_that_of_all_images_of_a_folder(densematch, images: Path, tmp_path: Path) -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[:, 160:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    common = ("match", "--folder", images, "--matcher", "sift", "--retrieve", "1", "--mask", tmp_path / "mask.png")
    outcome = densematch(*common, "--out", tmp_path / "o")
    assert outcome.code == 0, outcome.err
    for file in (tmp_path / "o").glob("*.npz"):
        found = np.load(file)
        assert len(found["score"]) > 20
        assert min(found["reference_xy"][:, 0].min(), found["query_xy"][:, 0].min()) >= 159.5
    cv2.imwrite(str(images / "small.png"), mask[:100])
    outcome = densematch(*common, "--out", tmp_path / "o")
    assert outcome.code == 2
    assert f"--mask {tmp_path / 'mask.png'} is 320 x 240, {images / 'small.png'} is 320 x 100" in outcome.err
